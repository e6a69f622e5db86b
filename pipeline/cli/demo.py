"""The whole main job on generated listings: what `nightprice demo` does and shows."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from transforms.listings.example import EXAMPLE

from nightprice.errors import NightpriceError
from pipeline.settings import Settings
from registry import CHAMPION
from transforms.listings.generate import generate

if TYPE_CHECKING:
    from rich.console import RenderableType

READY_SECONDS = 60.0
ROWS = 40_000
BATCH_ROWS = 5_000
SHARDS = 8
Note = Callable[[str], None]


def demo(folder: Path, settings: Settings, *, rows: int = ROWS, note: Note = print) -> dict[str, Any]:
    """Generate `rows` listings, process them, train both estimators, promote the better model, score a batch with it.

    `folder` then holds raw, dataset, registry, batch and scored; a second run replaces what was generated and adds
    versions
    to the rest. Each step is told to `note` when it is done. Ray runs already, or the first step that needs it starts
    it.

    Returns what happened, in JSON's types; `show` draws it.
    """
    from pipeline.predict import predict
    from pipeline.process import process
    from pipeline.train.train import train
    from registry.registry import Registry

    seconds: dict[str, float] = {}
    raw, dataset, batch, scored = (str(folder / name) for name in ("raw", "dataset", "batch", "scored"))
    settings = settings.override(registry=str(folder / "registry"))
    with _step("generate", f"{rows:,} raw listings as messy as real ones, and {BATCH_ROWS:,} to score", seconds, note):
        generate(rows, _emptied(raw), shards=SHARDS, seed=settings.seed)
        generate(BATCH_ROWS, _emptied(batch), shards=2, seed=settings.seed + 1)
    with _step("process", "every row accepted, or rejected with its reasons", seconds, note):
        processed = process(raw, dataset, settings)
    with _step("train the baseline", "the notebook's random forest", seconds, note):
        forest = train(dataset, estimator="random_forest", registry=settings.registry, settings=settings)
    with _step("train", "XGBoost on all 17 features, beside the forest on the same holdout rows", seconds, note):
        boosted = train(
            dataset, estimator="xgboost", registry=settings.registry, settings=settings, compare=forest["model"]
        )
    best = max(boosted, forest, key=lambda model: model["metrics"]["roc_auc"])
    with _step("promote", f"{best['model']} is the champion", seconds, note):
        why = f"demo: best ROC AUC on the holdout listings, {best['metrics']['roc_auc']:.4f}"
        record = Registry(settings.registry).promote(
            settings.model_name, best["model"].partition("@")[2], CHAMPION, why
        )
    champion = f"{settings.model_name}@{CHAMPION}"
    # The service starts while the batch is scored.
    with service(champion, settings.registry) as ask:
        with _step("predict", f"a batch with {champion}", seconds, note):
            predicted = predict(champion, batch, scored, settings)
        with _step("serve", "one prediction over HTTP, as any client asks for it", seconds, note):
            answer = ask(EXAMPLE)
    return {
        "folder": str(folder),
        "rows": rows,
        "seconds": seconds,
        "dataset": {"uri": dataset} | {name: processed[name] for name in ("version", "rows", "reasons", "warnings")},
        "models": {"notebook's forest": forest, "xgboost": boosted},
        "champion": {"model": best["model"], **record.as_json()},
        "report": str(best["report"]),
        "asked": {"listing": EXAMPLE, "answer": answer},
        "scored": {"uri": scored}
        | {name: predicted[name] for name in ("version", "rows", "reasons", "warnings", "model")},
    }


@contextmanager
def service(model: str, registry: str) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """A service of a model in a process of its own; gives a function that waits for it and asks it for one
    prediction.
    """
    address = f"http://127.0.0.1:{_free_port()}"
    command = ["serve", "--model", model, "--registry", registry, "--port", address.rpartition(":")[2]]
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:

        def ask(listing: Mapping[str, Any]) -> dict[str, Any]:
            _wait_until_ready(address, process)
            request = Request(
                f"{address}/v1/predict", json.dumps(listing).encode(), {"Content-Type": "application/json"}
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
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


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
                said = service.communicate()[1].decode(errors="replace").strip().splitlines()
                raise NightpriceError(
                    said[-1].removeprefix("Error: ") if said else "The service ended without a word."
                ) from None
        time.sleep(0.1)
    raise NightpriceError(
        f"The service was not ready within {READY_SECONDS:.0f} s. Look for what keeps the machine busy."
    )


def show(done: Mapping[str, Any]) -> list["RenderableType"]:
    """What `demo` returned, for people: counts, metrics side by side, where the report lies, what to type next."""
    from rich.text import Text

    from pipeline.cli import render

    champion = done["champion"]
    folder = Path(done["folder"])
    registry = f"--registry {folder / 'registry'}"
    name = champion["model"].partition("@")[0]
    answer = done["asked"]["answer"]
    likely = ", ".join(f"{label} {probability:.0%}" for label, probability in answer["probabilities"].items())
    return [
        Text("\nProcessed", style="bold underline"),
        render.rows(done["dataset"], done["dataset"]["uri"]),
        Text("\nTrained, and measured on listings that training never saw", style="bold underline"),
        render.metrics({title: model["metrics"] for title, model in done["models"].items()}),
        Text.assemble(("\nPromoted  ", "bold"), f"{champion['model']} as {name}@{CHAMPION}"),
        Text.assemble(("Report    ", "bold"), done["report"]),
        Text("\nScored", style="bold underline"),
        render.rows(done["scored"], done["scored"]["uri"]),
        Text.assemble(
            ("\nAsked over HTTP  ", "bold"),
            "an apartment in Brooklyn for four is ",
            (answer["price_category"], "bold"),
            f" ({likely})",
        ),
        Text(f"\nDone in {sum(done['seconds'].values()):.0f} s.\n"),
        render.next_steps(
            *([] if shutil.which("nightprice") else [f". {os.path.relpath(Path(sys.prefix, 'bin', 'activate'))}"]),
            f"nightprice models {registry}",
            f"nightprice serve --model {name}@{CHAMPION} {registry}",
            f"nightprice process --source YOUR_LISTINGS.csv.gz --sink {folder / 'yours'}",
            f"nightprice train --data {folder / 'yours'} {registry}",
        ),
    ]


@contextmanager
def _step(name: str, what: str, seconds: dict[str, float], note: Note) -> Iterator[None]:
    """Keeps and tells how long a step took."""
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 1)
    note(f"{seconds[name]:6.1f} s  {name}: {what}")


def _emptied(folder: str) -> Path:
    """The folder without what an earlier run generated; anything else in it is left, and `generate` will say so."""
    for file in Path(folder).glob("listings-*-of-*.parquet"):
        file.unlink()
    return Path(folder)
