"""The images: what they are made of, and, with NIGHTPRICE_TEST_IMAGE, that they build and run.

NIGHTPRICE_TEST_IMAGE=1 builds them from a Debian root (root's rights, buildah, debootstrap, the internet, ten minutes);
NIGHTPRICE_TEST_IMAGE=built takes those that buildah holds. BUILDAH, CA and PIP_CONF are those of deploy/image/build.sh.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.image.container import Image, mounted, running
from deploy.image.smoke_test import PIPELINE, SERVING, USER, serve, smoke_test
from registry.registry import Registry
from tests.support.cluster.config import cluster_config
from tests.support.paths import ROOT
from tests.support.s3_server import Bucket
from tests.support.serving.models import boosted_artifact
from tests.support.tiny_model import FIRST, NAME
from tests.support.training_libraries import TRAINING

DOCKERFILE = (ROOT / "Dockerfile").read_text()
IMAGE_TEST = os.environ.get("NIGHTPRICE_TEST_IMAGE")
for_real = pytest.mark.skipif(IMAGE_TEST is None, reason="NIGHTPRICE_TEST_IMAGE=1 builds the images and runs them")
# The distributions of the modules that train, and what only they need.
TRAINS = {"scikit-learn", "xgboost", "xgboost-cpu", "scipy", "joblib", *TRAINING - {"sklearn"}}


def pins(lock: str) -> dict[str, frozenset[str]]:
    """The hashes of every package==version in a lock file."""
    found = re.findall(r"^(\S+==\S+)[^\n]*\n((?: +--hash=\S+(?: \\)?\n)+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {pin: frozenset(re.findall(r"--hash=(\S+)", hashes)) for pin, hashes in found}


def names(lock: str) -> set[str]:
    return {pin.partition("==")[0] for pin in pins(lock)}


def target(name: str) -> str:
    """The lines of one target of the Dockerfile."""
    (found,) = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("lock", ["serving", "pipeline", "build"])
def test_an_image_has_the_versions_of_the_lock(lock: str) -> None:
    everywhere = pins("requirements.lock")

    assert pins(f"deploy/image/{lock}.lock")
    assert {
        pin: hashes for pin, hashes in pins(f"deploy/image/{lock}.lock").items() if everywhere.get(pin) != hashes
    } == {}


def test_the_serving_image_trains_nothing() -> None:
    assert names("deploy/image/serving.lock") & TRAINS == set()
    assert names("deploy/image/pipeline.lock") >= {"scikit-learn", "xgboost-cpu", "boto3"} | names(
        "deploy/image/serving.lock"
    )


@pytest.mark.parametrize("name", ["serving", "pipeline"])
def test_an_image_is_nobody_special_and_starts_one_command(name: str) -> None:
    lines = target(name).splitlines()

    assert [line for line in lines if line.startswith("USER")][-1] == f"USER {USER}"
    assert [line for line in lines if line.startswith("CMD")][-1].startswith('CMD ["nightprice"')
    # A shell must start in it, for `ray up` and KubeRay.
    assert [line for line in DOCKERFILE.splitlines() if line.startswith("ENTRYPOINT")] == []


def test_the_build_sees_the_packages_and_nothing_else() -> None:
    ignored, *allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]

    assert ignored == "*"
    assert {line for line in allowed if line.startswith("!")} >= {
        f"!{name}" for name in ("transforms", "registry", "serve_app", "pipeline")
    }
    copied = [
        source for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()
    ]
    assert [
        source for source in copied if not any(Path(source).match(line.removeprefix("!")) for line in allowed)
    ] == []


def test_manifests_name_these_targets() -> None:
    assert cluster_config()["docker"]["image"].endswith("nightprice:pipeline")
    for path in (ROOT / "deploy/kuberay").glob("*.yaml"):
        assert set(re.findall(r"nightprice:(\w+)", path.read_text())) == {
            "serving" if path.stem == "service" else "pipeline"
        }


@pytest.fixture(scope="module")
def images() -> None:
    """Both images, in buildah's store."""
    if os.geteuid() or not shutil.which("buildah"):
        pytest.skip("needs root's rights and buildah")
    if IMAGE_TEST != "built":
        subprocess.run([ROOT / "deploy/image/build.sh"], env={**os.environ, "BASE_IMAGE": "debian-root"}, check=True)


@pytest.fixture(scope="module")
def pipeline(images: None) -> Iterator[Image]:
    with mounted(PIPELINE) as image:
        yield image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the containers' user can reach."""
    for part in (tmp_path, *tmp_path.parents[:2]):
        part.chmod(0o755)
    return tmp_path


@for_real
def test_one_trains_and_the_other_answers(images: None, folder: Path) -> None:
    done = smoke_test(folder)

    for way in ("mounted", "baked"):
        answers: dict[str, Any] = done[way]["answers"]
        assert answers["/v1/predict"]["model"] == done["model"]
        assert len(answers["/v1/explain"]["contributions"]) == 4


@for_real
def test_a_registry_is_named_by_its_address(images: None, folder: Path, s3: Bucket) -> None:
    registry = Registry(f"{s3.uri}/models")
    registry.publish(boosted_artifact(folder / "model", version=FIRST), NAME)
    registry.promote(NAME, FIRST, "champion", "test")
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

    done = serve(SERVING, folder, own_network=False, variables={**aws, "NIGHTPRICE_SERVE_REGISTRY": registry.uri})

    assert done["answers"]["/v1/predict"]["model"] == f"{NAME}@{FIRST}"


@for_real
def test_without_a_model_it_says_what_to_do(images: None, folder: Path) -> None:
    with mounted(SERVING) as image, running(image, log=folder / "log") as container:
        assert container.wait(120) == 1

    assert "There is no registry at /models." in container.said


@for_real
def test_no_training_library_and_no_installer_is_in_the_serving_image(images: None) -> None:
    with mounted(SERVING) as image:
        (packages,) = image.root.glob("opt/nightprice/lib/python3*/site-packages")
        there = {path.name for path in packages.iterdir()}

    assert "serve_app" in there
    assert there & {*TRAINING, "scipy", "joblib", "pip"} == set()


@for_real
def test_a_node_of_a_cluster_takes_jobs(pipeline: Image, folder: Path) -> None:
    """As `ray up` does it: login shells in a running container."""
    start = "ray start --head --block --num-cpus=1 --object-store-memory=100000000"
    variables = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with running(pipeline, "bash", "-c", start, variables=variables, log=folder / "log") as container:
        shell = ("bash", "--login", "-c", "-i")
        tools = container.run(
            *shell, "source ~/.bashrc; command -v ssh rsync ray nightprice && python -c 'import boto3'"
        )
        assert tools.returncode == 0, tools.stderr
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8265/').read().decode())"
        page = container.run("bash", "-c", f'until python -c "{ask}" 2>/dev/null; do sleep 1; done')
        job = container.run(*shell, "source ~/.bashrc; ray job submit -- python -m pipeline models --help")

    assert "List the versions of a model" in job.stdout, job.stdout + job.stderr + container.said
    assert "<title>Ray Dashboard</title>" in page.stdout
