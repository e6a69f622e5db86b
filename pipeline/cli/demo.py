"""The whole main job on generated rows: what `nightprice demo` does and shows."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from nightprice.errors import NightpriceError, UsageError
from pipeline.settings import Settings
from pipeline.train import estimators
from registry import CHAMPION

if TYPE_CHECKING:
    from rich.console import RenderableType

    from transforms.contract import Contract

READY_SECONDS = 60.0
ROWS = 40_000
BATCH_ROWS = 5_000
SHARDS = 8
Note = Callable[[str], None]


def demo(folder: Path, settings: Settings, *, rows: int = ROWS, note: Note = print) -> dict[str, Any]:
    """Generate `rows` rows, process them, train both estimators, promote the better model, score a batch with it.

    `folder` then holds raw, dataset, registry, batch and scored; a second run replaces what was generated and adds
    versions to the rest. `note` is called with a line for each step that is done.

    Returns what happened, in JSON's types; `show` renders it. Raises UsageError if the contract has no generator.
    """
    from pipeline.predict import predict
    from pipeline.process import process
    from pipeline.train.train import train
    from registry.registry import Registry

    contract = settings.load_contract()
    seconds: dict[str, float] = {}
    raw, dataset, batch, scored = (str(folder / name) for name in ("raw", "dataset", "batch", "scored"))
    settings = settings.override(registry=str(folder / "registry"))
    generated = f"{rows:,} raw {contract.records}, mess included, and {BATCH_ROWS:,} to score"
    with _step("generate", generated, seconds, note):
        generate = generator_of(contract)
        generate(rows, _emptied(raw), shards=SHARDS, seed=settings.seed)
        generate(BATCH_ROWS, _emptied(batch), shards=2, seed=settings.seed + 1)
    with _step("process", "every row accepted, or rejected with its reasons", seconds, note):
        processed = process(raw, dataset, settings)
    fit = partial(train, dataset, registry=settings.registry, settings=settings)
    with _step("train the baseline", "the notebook's model", seconds, note):
        baseline = fit(estimator=estimators.BASELINE)
    features = f"{estimators.DEFAULT} on all {len(contract.features)} features"
    with _step("train", f"{features}, beside the baseline on the same held-out rows", seconds, note):
        default = fit(estimator=estimators.DEFAULT, compare=baseline["model"])
    best = max(default, baseline, key=lambda model: model["metrics"]["roc_auc"])
    name, _, version = best["model"].partition("@")
    with _step("promote", f"{best['model']} is the champion", seconds, note):
        why = f"demo: best ROC AUC on the held-out {contract.records}, {best['metrics']['roc_auc']:.4f}"
        record = Registry(settings.registry).promote(name, version, CHAMPION, why, force=True)
    champion = f"{name}@{CHAMPION}"
    # The service starts while the batch is scored.
    with service(champion, settings) as ask:
        with _step("predict", f"a batch with {champion}", seconds, note):
            predicted = predict(champion, batch, scored, settings)
        with _step("serve", "one prediction over HTTP, as any client requests it", seconds, note):
            answer = ask(contract.example)
    return {
        "folder": str(folder),
        "rows": rows,
        "seconds": seconds,
        "dataset": {"uri": dataset} | {key: processed[key] for key in ("version", "rows", "reasons", "warnings")},
        "models": {"the baseline": baseline, estimators.DEFAULT: default},
        "champion": {"model": best["model"], **record.as_json()},
        "report": str(best["report"]),
        "asked": {"record": dict(contract.example), "answer": answer, "label": answer[contract.label_name]},
        "scored": {"uri": scored}
        | {key: predicted[key] for key in ("version", "rows", "reasons", "warnings", "model")},
        "records": contract.records,
    }


def generator_of(contract: "Contract") -> Callable[..., dict[str, Any]]:
    """What writes raw records of a contract. Raises UsageError if there is none."""
    if contract.generate is None:
        raise UsageError(
            f'The contract "{contract.name}" has no generator, so there is nothing to demonstrate on. '
            f"Process {contract.records} of your own: nightprice process."
        )
    return contract.generate


@contextmanager
def service(model: str, settings: Settings) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """A service of a model in a process of its own; yields a function that waits until it is ready and requests one
    prediction.
    """
    address = f"http://127.0.0.1:{_free_port()}"
    command = ["serve", "--model", model, "--registry", settings.registry, "--port", address.rpartition(":")[2]]
    environment = {**os.environ, "NIGHTPRICE_CONTRACT": settings.contract}
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:

        def ask(record: Mapping[str, Any]) -> dict[str, Any]:
            _wait_until_ready(address, process)
            request = Request(
                f"{address}/v1/predict", json.dumps(record).encode(), {"Content-Type": "application/json"}
            )
            with urlopen(request, timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
            return answer

        try:
            yield ask
        finally:
            process.terminate()
            process.communicate()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(address: str, service: "subprocess.Popen[bytes]") -> None:
    """Wait for the service to say so; NightpriceError with its last line if it ends first, or after READY_SECONDS."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urlopen(f"{address}/readyz", timeout=2):
                return
        except OSError:
            # Not yet, or never: then its process has ended.
            if service.poll() is not None:
                said = service.stderr.read() if service.stderr else b""
                lines = said.decode(errors="replace").strip().splitlines()
                raise NightpriceError(
                    lines[-1].removeprefix("Error: ") if lines else "The service ended without a message."
                ) from None
        time.sleep(0.1)
    raise NightpriceError(f"The service was not ready within {READY_SECONDS:.0f} s. Check what keeps the machine busy.")


def show(result: Mapping[str, Any]) -> list["RenderableType"]:
    """The result of `demo` for people: counts, metrics side by side, the report's address, what to type next."""
    from rich.text import Text

    from pipeline.cli import render

    champion, records = result["champion"], result["records"]
    folder = Path(result["folder"])
    registry = f"--registry {folder / 'registry'}"
    name = champion["model"].partition("@")[0]
    probabilities = result["asked"]["answer"]["probabilities"]
    likely = ", ".join(f"{label} {probability:.0%}" for label, probability in probabilities.items())
    return [
        Text("\nProcessed", style="bold underline"),
        render.render_rows(result["dataset"], result["dataset"]["uri"]),
        Text(f"\nTrained, and measured on {records} that training never saw", style="bold underline"),
        render.render_metrics({title: model["metrics"] for title, model in result["models"].items()}),
        Text.assemble(("\nPromoted  ", "bold"), f"{champion['model']} as {name}@{CHAMPION}"),
        Text.assemble(("Report    ", "bold"), result["report"]),
        Text("\nScored", style="bold underline"),
        render.render_rows(result["scored"], result["scored"]["uri"]),
        Text.assemble(
            ("\nRequested over HTTP  ", "bold"),
            "the contract's example is ",
            (result["asked"]["label"], "bold"),
            f" ({likely})",
        ),
        Text(f"\nDone in {sum(result['seconds'].values()):.0f} s.\n"),
        render.render_next_steps(
            *([] if shutil.which("nightprice") else [f". {os.path.relpath(Path(sys.prefix, 'bin', 'activate'))}"]),
            f"nightprice models {registry}",
            f"nightprice serve --model {name}@{CHAMPION} {registry}",
            f"nightprice process --source YOUR_ROWS.csv.gz --sink {folder / 'yours'}",
            f"nightprice train --data {folder / 'yours'} {registry}",
        ),
    ]


@contextmanager
def _step(name: str, what: str, seconds: dict[str, float], note: Note) -> Iterator[None]:
    """Records and notes how long a step took."""
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 1)
    note(f"{seconds[name]:6.1f} s  {name}: {what}")


def _emptied(folder: str) -> Path:
    """The folder without what an earlier run generated; for anything else in it, the generator raises UsageError."""
    for file in Path(folder).glob("*-of-*.parquet"):
        file.unlink()
    return Path(folder)
