#!/usr/bin/env bash
# Build the images without a Docker engine, on a machine with buildah, as root, and print their sizes.
#
#   deploy/image/build.sh                                  from the Dockerfile's own base
#   BASE_IMAGE=debian-root deploy/image/build.sh           from a Debian root that debootstrap makes (needs no image registry)
#   PIP_CONF=pip.conf CA=ca.pem deploy/image/build.sh      with an index of your own, which leaves no trace in the images
#   BUILDAH="buildah --root DIR --runroot DIR"             where else the images are kept
set -euo pipefail
cd "$(dirname "$0")/../.."

buildah=${BUILDAH:-buildah}
export BUILDAH_ISOLATION=chroot
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The stand-in for an official base: Debian bookworm's Python, without what official slim images leave out as well.
debian_root() {
  local root=$scratch/root container
  debootstrap --variant=minbase --include=ca-certificates,netbase,python3,python3-venv,tzdata bookworm "$root" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$scratch/debootstrap.log" || { tail "$scratch/debootstrap.log" >&2; return 1; }
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/man/* "$root"/usr/share/info/*
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  find "$root/usr/share/locale" -mindepth 1 -maxdepth 1 ! -name 'en*' -exec rm -rf {} +
  container=$($buildah from scratch)
  $buildah add --quiet "$container" "$root" / >/dev/null
  $buildah commit --quiet --rm "$container" debian-root >/dev/null
}

options=(--layers --format docker)
if [ "${BASE_IMAGE:-}" = debian-root ]; then
  $buildah inspect --type image debian-root >/dev/null 2>&1 || debian_root
  options+=(--pull-never --build-arg BASE_IMAGE=localhost/debian-root)
elif [ -n "${BASE_IMAGE:-}" ]; then
  options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
fi
# Certificates without a configuration: one that names them.
[ -z "${CA:-}" ] || [ -n "${PIP_CONF:-}" ] || printf '[global]\ncert = /run/secrets/ca\n' >"${PIP_CONF:=$scratch/pip.conf}"
[ -z "${PIP_CONF:-}" ] || options+=(--secret "id=pip,src=$PIP_CONF")
[ -z "${CA:-}" ] || options+=(--secret "id=ca,src=$CA")

for target in serving pipeline; do
  $buildah build "${options[@]}" --target "$target" --tag "nightprice:$target" . >"$scratch/$target.log" 2>&1 || { tail -40 "$scratch/$target.log" >&2; exit 1; }
done
$buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' | grep -E 'nightprice:|debian-root|python'
