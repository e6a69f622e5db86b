# Two images: `serving` answers predictions, `pipeline` does everything. The guide: docs/image.md.
#
# The base: Debian with Python 3.11 to 3.13 and its venv module.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
WORKDIR /src
ENV PIP_CACHE_DIR=/var/cache/pip
# The environment that goes into an image has no pip: the one of /build fills it.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/nightprice
# For `strip`.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
COPY deploy/image/build.lock ./
# An index of your own: the secret `pip` is a pip.conf, `ca` the certificates that it may name as /run/secrets/ca. Neither stays.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=cache,target=/var/cache/pip \
    /build/bin/pip install --no-deps --require-hashes -r build.lock

FROM builder AS wheel
COPY LICENSE README.md pyproject.toml ./
COPY nightprice nightprice
COPY transforms transforms
COPY registry registry
COPY serve_app serve_app
COPY pipeline pipeline
RUN /build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels .

FROM builder AS serving-environment
COPY deploy/image/serving.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=cache,target=/var/cache/pip \
    /build/bin/pip --python /opt/nightprice/bin/python install --no-compile --no-deps --require-hashes -r serving.lock
COPY deploy/image/slim.sh ./
COPY --from=wheel /wheels /wheels
RUN /build/bin/pip --python /opt/nightprice/bin/python install --no-compile --no-index --no-deps /wheels/*.whl && sh slim.sh /opt/nightprice

FROM builder AS pipeline-environment
COPY deploy/image/pipeline.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=cache,target=/var/cache/pip \
    /build/bin/pip --python /opt/nightprice/bin/python install --no-compile --no-deps --require-hashes -r pipeline.lock
COPY deploy/image/slim.sh ./
COPY --from=wheel /wheels /wheels
RUN /build/bin/pip --python /opt/nightprice/bin/python install --no-compile --no-index --no-deps /wheels/*.whl && sh slim.sh /opt/nightprice

FROM ${BASE_IMAGE} AS base
# The id is a number in USER below, by which Kubernetes tells that it is not root's. Login shells, in which `ray up` runs its commands,
# set PATH anew.
RUN useradd --uid 1000 --create-home --shell /bin/bash nightprice \
    && echo 'PATH=/opt/nightprice/bin:$PATH' > /etc/profile.d/nightprice.sh
# All that is written lies below /tmp: the rest may be read-only.
ENV PATH=/opt/nightprice/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/tmp/cache
WORKDIR /home/nightprice
STOPSIGNAL SIGTERM

FROM base AS pipeline
# The head of a cluster of `ray up` logs in to the other nodes and copies files to them.
RUN apt-get update && apt-get install --yes --no-install-recommends openssh-client rsync && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=pipeline-environment /opt/nightprice /opt/nightprice
USER 1000
# No ENTRYPOINT: `ray up` and KubeRay start shells in this image.
CMD ["nightprice", "--help"]

FROM base AS serving
COPY --from=serving-environment /opt/nightprice /opt/nightprice
ENV NIGHTPRICE_SERVE_HOST=0.0.0.0 \
    NIGHTPRICE_SERVE_REGISTRY=/models
USER 1000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('NIGHTPRICE_SERVE_PORT', 8000)}/readyz\", timeout=4)"]
CMD ["nightprice", "serve"]
