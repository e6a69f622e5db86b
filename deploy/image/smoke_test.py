"""Run the images that deploy/image/build.sh built: `pipeline` trains a small model, `serving` answers with it.

python3 -m deploy.image.smoke_test

Each container has a read-only root file system, no rights and no network. Prints what was done, and at the end one
JSON object.
Needs root's rights, buildah, iproute2 and util-linux, and nothing of Python but its own library.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy.image.container import BUILDAH, ContainerError, Volume, buildah, mounted, running

ROOT = Path(__file__).resolve().parents[2]
PIPELINE, SERVING, WITH_MODEL = (
    "localhost/nightprice:pipeline",
    "localhost/nightprice:serving",
    "localhost/nightprice:smoke-test",
)
USER = 1000
# Small: what is tested is the image.
FEW = {"NIGHTPRICE_XGBOOST__ROUNDS": "5", "NIGHTPRICE_REGISTRY": "/data/models"}
ASK = """
import json, sys, urllib.request as r
from transforms.listings import CONTRACT
body, headers = json.dumps(CONTRACT.example).encode(), {"content-type": "application/json"}
question = r.Request("http://127.0.0.1:8000" + sys.argv[1], body, headers)
print(r.urlopen(question, timeout=30).read().decode())
"""


def train(folder: Path) -> str:
    """Let the image `pipeline` fill a folder: raw listings, a dataset, and a registry with a champion, which is
    returned.
    """
    with mounted(PIPELINE) as image:

        def step(*line: str) -> Any:
            data = Volume(folder, "/data", writable=True)
            with running(
                image, "nightprice", *line, "--json", volumes=[data], variables=FEW, log=folder.parent / "step.log"
            ) as container:
                code = container.wait()
                if code:
                    raise ContainerError(f"nightprice {' '.join(line)} ended with {code}: {container.said}")
                print(f"pipeline: nightprice {' '.join(line)}", flush=True)
                return json.loads(container.said.strip().splitlines()[-1])

        step("generate", "--rows", "3000", "--out", "/data/raw")
        step("process", "--source", "/data/raw", "--sink", "/data/dataset")
        model: str = step("train", "--data", "/data/dataset")["model"]
        step("promote", model, "--reason", "smoke test")
        return model


def serve(name: str, folder: Path, *, volumes: tuple[Volume, ...] = (), **options: Any) -> dict[str, Any]:
    """Start an image's own command, ask for a prediction and an explanation, and stop it: the answers, seconds and
    exit code.
    """
    with mounted(name) as image, running(image, volumes=volumes, log=folder / "serve.log", **options) as container:
        seconds = container.await_healthy()
        answers = {}
        for path in ("/v1/predict", "/v1/explain"):
            answer = container.run("python", "-c", ASK, path)
            if answer.returncode:
                raise ContainerError(f"{name} does not answer {path}: {answer.stderr}{container.said}")
            answers[path] = json.loads(answer.stdout)
        began = time.monotonic()
        code = container.stop()
        if code:
            raise ContainerError(f"{name} ended with {code}: {container.said}")
    return {
        "answers": answers,
        "seconds_to_ready": round(seconds, 1),
        "seconds_to_end": round(time.monotonic() - began, 1),
    }


def bake(version: Path) -> None:
    """Build the image with this version of the model in it."""
    file = ROOT / "deploy/image/model.Dockerfile"
    options = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--quiet", "--file", str(file)]
    buildah("build", *options, "--build-arg", f"SERVING={SERVING}", "--tag", WITH_MODEL, str(version))


def smoke_test(folder: Path) -> dict[str, Any]:
    """All of it, in a folder that the containers' user can enter."""
    data = folder / "data"
    data.mkdir()
    os.chown(data, USER, USER)
    model = train(data)
    mounted_registry = serve(SERVING, folder, volumes=(Volume(data / "models", "/models"),))
    print(f"serving: a mounted registry, ready after {mounted_registry['seconds_to_ready']} s", flush=True)
    name, version = model.split("@")
    bake(data / "models" / name / "versions" / version)
    try:
        baked = serve(WITH_MODEL, folder)
    finally:
        buildah("rmi", WITH_MODEL)
    print(f"serving: a model in the image, ready after {baked['seconds_to_ready']} s", flush=True)
    return {"model": model, "mounted": mounted_registry, "baked": baked}


def main() -> int:
    """Rehearse; 0 if all went well."""
    missing = [tool for tool in (BUILDAH[0], "ip", "nsenter", "unshare") if shutil.which(tool) is None]
    if missing or os.geteuid():
        print(f"Error: this needs root's rights and {', '.join(missing) or 'nothing else'}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        try:
            done = smoke_test(Path(folder))
        except ContainerError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    for way in ("mounted", "baked"):
        done[way]["prediction"] = done[way].pop("answers")["/v1/predict"]
    print(json.dumps(done, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
