"""The command line: each command reads its options, calls one function of the pipeline, and shows what came of it.

The functions are imported when their command runs: `nightprice --help` needs neither Ray nor any extra.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightprice.address import parse_address
from nightprice.errors import UsageError
from pipeline.cli.command import Run, app, command
from registry import CHAMPION

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from registry.registry import Registry as RegisteredModels

__all__ = ["app", "main"]


class Estimator(StrEnum):
    """The names of `pipeline.train.estimator`, known here without importing them."""

    XGBOOST = "xgboost"
    RANDOM_FOREST = "random_forest"


Source = Annotated[
    str,
    typer.Option(
        metavar="URI", help="Raw listings: folder, glob, file, s3://, https://, postgresql://, bigquery://, …"
    ),
]
Sink = Annotated[
    str, typer.Option(metavar="URI", help="Where the result goes; the version there is replaced when all is written.")
]
Data = Annotated[str, typer.Option(metavar="URI", help="What `process` wrote.")]
Model = Annotated[str, typer.Option(metavar="REF", help="listing-price@champion, listing-price@VERSION or a folder.")]
Registry = Annotated[
    str | None, typer.Option(metavar="URI", help="Registry of models (default: the setting `registry`).")
]
Alias = Annotated[str, typer.Option(help="The alias to look at or change.")]
Name = Annotated[str | None, typer.Argument(help="Name of the model (default: the setting `model_name`).")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why: it stands in the history.")]
Workers = Annotated[int, typer.Option(min=1, max=1024, help="Ray Train workers.")]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of everything random (default: the setting `seed`).")
]
MaxRejected = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, metavar="SHARE", help="Fail if a larger share is rejected (default: the setting `max_rejected`)."
    ),
]


@command("nightprice demo")
def demo(
    run: Run,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything the demo makes.")] = Path(
        "nightprice-demo"
    ),
    rows: Annotated[int, typer.Option(min=1_000, help="How many listings to generate.")] = 40_000,
) -> None:
    """All of it on generated listings: generate, process, train, evaluate, promote, predict."""
    settings = run.settings()
    with run.ray("Running the demo"):
        from pipeline.cli.demo import demo, show

        done = demo(out, settings, rows=rows, note=run.screen.note)
    run.screen.result(done, *show(done))


@command("nightprice generate --rows 100000 --out raw --shards 8")
def generate(
    run: Run,
    *,
    rows: Annotated[int, typer.Option(min=1, help="How many listings.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write Parquet files to; it must be empty or not there.")
    ],
    shards: Annotated[int, typer.Option(min=1, max=100_000, help="How many files.")] = 8,
    bad_rows: Annotated[float, typer.Option(min=0, max=1, metavar="SHARE", help="Share of rows to spoil.")] = 0.02,
    seed: Seed = None,
) -> None:
    """Write listings like New York's in Inside Airbnb's raw format, mess included."""
    from pipeline.cli import render
    from transforms.listings.generate import generate

    settings = run.settings(seed=seed)
    with run.screen.working(f"Generating {rows:,} listings"):
        made = generate(rows, out, shards=shards, bad_rows=bad_rows, seed=settings.seed)
    told = f"{rows:,} listings in {len(made['files'])} files in {out}, {sum(made['bad'].values()):,} of them spoiled"
    run.screen.result(made, told, render.next_steps(f"nightprice process --source {out} --sink dataset"))


@command("nightprice process --source raw --sink dataset")
def process(run: Run, *, source: Source, sink: Sink, max_rejected: MaxRejected = None) -> None:
    """Clean raw listings into a dataset: accepted rows, rejected rows with their reasons, and a manifest."""
    settings = run.settings(max_rejected=max_rejected)
    with run.ray(f"Processing {parse_address(source).display}"):
        from pipeline.process import process

        manifest = process(source, sink, settings)
    from pipeline.cli import render

    run.screen.result(
        manifest,
        render.rows(manifest, parse_address(sink).display),
        render.next_steps(f"nightprice train --data {parse_address(sink).display}"),
    )


@command("nightprice train --data dataset --workers 2")
def train(
    run: Run,
    *,
    data: Data,
    estimator: Annotated[Estimator, typer.Option(help="What to train.")] = Estimator.XGBOOST,
    workers: Workers = 1,
    holdout_ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ids of exactly the listings to hold out, one a line (default: a share by hash of the id).",
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="REF", help="A model to set beside the new one, on the same rows.")
    ] = None,
    registry: Registry = None,
    seed: Seed = None,
) -> None:
    """Train a model, evaluate it on listings it has not seen, and publish it in the registry."""
    settings = run.settings(registry=registry, seed=seed)
    with run.ray(f"Training {estimator} on {parse_address(data).display}"):
        from pipeline.train.train import train

        result = train(
            data,
            estimator=estimator.value,
            workers=workers,
            holdout_ids=str(holdout_ids) if holdout_ids else None,
            registry=settings.registry,
            settings=settings,
            compare=compare,
        )
    from pipeline.cli import render

    told = f"{result['model']} is in {settings.registry}\nReport: {result['report']}"
    steps = render.next_steps(f"nightprice promote {result['model']} --if-better{_registry_option(registry)}")
    run.screen.result(result, render.metrics({result["model"]: result["metrics"]}), told, steps)


@command("nightprice evaluate --model listing-price@champion --data dataset")
def evaluate(
    run: Run,
    *,
    model: Model,
    data: Data,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Only on the listings that the model's own training held out.")
    ] = False,
    registry: Registry = None,
) -> None:
    """Measure a model on the accepted rows of a dataset."""
    settings = run.settings(registry=registry)
    with run.ray(f"Evaluating {model} on {parse_address(data).display}"):
        from pipeline.datasets import open_dataset
        from pipeline.evaluation.evaluate import evaluate_dataset
        from pipeline.split import Split

        artifact = registry_of(settings).load(model)
        dataset = open_dataset(data, settings.load_contract())
        found = evaluate_dataset(
            artifact, dataset, Split.of_model(artifact.manifest, artifact.folder) if holdout else None
        )
    from pipeline.cli import render

    result = {
        "model": artifact.ref,
        "dataset": {"uri": dataset.address.display, "version": dataset.version},
        **found,
    }
    run.screen.result(result, render.metrics({artifact.ref: found["metrics"]}), *render.evaluated(found))


@command("nightprice predict --model listing-price@champion --source raw --sink scored")
def predict(
    run: Run, *, model: Model, source: Source, sink: Sink, max_rejected: MaxRejected = None, registry: Registry = None
) -> None:
    """Score raw listings in bulk; rows that can't be scored land in the rejected part with their reasons."""
    settings = run.settings(max_rejected=max_rejected, registry=registry)
    with run.ray(f"Scoring {parse_address(source).display} with {model}"):
        from pipeline.predict import predict

        manifest = predict(model, source, sink, settings)
    from pipeline.cli import render

    run.screen.result(manifest, f"Scored by {manifest['model']}", render.rows(manifest, parse_address(sink).display))


@command("nightprice promote listing-price@20261123T134500Z-1a2b3c --if-better")
def promote(
    run: Run,
    *,
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="The version to promote: listing-price@VERSION or another alias.")
    ],
    alias: Alias = CHAMPION,
    if_better: Annotated[
        bool, typer.Option("--if-better", help="Only if it beats the version in force on the same holdout rows.")
    ] = False,
    reason: Reason = "",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="With --if-better: the dataset to compare on (default: the one it was trained from)."
        ),
    ] = None,
    registry: Registry = None,
) -> None:
    """Let an alias name a version: who follows the alias scores with it from then on."""
    if data and not if_better:
        raise UsageError("--data is what --if-better compares on. Add --if-better, or leave --data out.")
    settings = run.settings(registry=registry)
    registered = registry_of(settings)
    name, version = registered.resolve(ref)
    before = registered.current(name, alias)
    # Repeated after a promotion that went through, by a schedule for example, this is no refusal.
    if if_better and not (before and before.version == version):
        with run.ray(f"Comparing {name}@{version} with {name}@{alias}"):
            reason = " ".join(
                filter(
                    None,
                    (
                        reason,
                        _gate(registered, f"{name}@{version}", f"{name}@{alias}" if before else None, data, settings),
                    ),
                )
            )
    record = registered.promote(name, version, alias, reason, expected=before.number if before else 0)
    if before and before.number == record.number:
        told = f"{name}@{alias} is {record.version} already: nothing was changed"
    else:
        told = f"{name}@{alias} is now {record.version}, before {record.previous or 'none'}\n{record.why}".rstrip()
    from pipeline.cli import render

    options = ("" if alias == CHAMPION else f" --alias {alias}") + _registry_option(registry)
    steps = render.next_steps(f"nightprice history {name}{options}", f"nightprice rollback {name}{options}")
    run.screen.result({"model": f"{name}@{record.version}", "alias": alias, **record.as_json()}, told, steps)


def _gate(
    registered: "RegisteredModels", challenger: str, champion: str | None, data: str | None, settings: "Settings"
) -> str:
    """Why the challenger may take the place. Raises GateRefused if it may not."""
    from pipeline.errors import GateRefused
    from pipeline.evaluation.gate import decide

    decision = decide(registered.load(challenger), registered.load(champion) if champion else None, settings, data)
    if not decision.promote:
        raise GateRefused(f"{challenger} was not promoted: {decision.reason}. {champion} stays in force.")
    return decision.reason


@command("nightprice rollback listing-price --reason 'complaints from Queens'")
def rollback(
    run: Run, *, name: Name = None, alias: Alias = CHAMPION, reason: Reason = "", registry: Registry = None
) -> None:
    """Let an alias name again what it named before its last promotion."""
    settings = run.settings(registry=registry, model_name=name)
    record = registry_of(settings).rollback(settings.model_name, alias, reason)
    told = f"{settings.model_name}@{alias} is {record.version} again, before {record.previous}"
    run.screen.result({"model": f"{settings.model_name}@{record.version}", "alias": alias, **record.as_json()}, told)


@command("nightprice models")
def models(run: Run, *, name: Name = None, registry: Registry = None) -> None:
    """List the versions of a model, newest first, with their metrics and aliases."""
    settings = run.settings(registry=registry, model_name=name)
    from pipeline.cli import render

    found = registry_of(settings)
    versions, aliases = found.versions(settings.model_name), found.aliases(settings.model_name)
    by_version: dict[str, list[str]] = {}
    for alias, record in aliases.items():
        by_version.setdefault(record.version, []).append(alias)
    data = {
        "name": settings.model_name,
        "versions": versions,
        "aliases": {alias: record.version for alias, record in aliases.items()},
    }
    run.screen.result(data, render.models(settings.model_name, versions, by_version))


@command("nightprice history listing-price --alias champion")
def history(run: Run, *, name: Name = None, alias: Alias = CHAMPION, registry: Registry = None) -> None:
    """List every change of an alias, newest first: who, when, why."""
    settings = run.settings(registry=registry, model_name=name)
    from pipeline.cli import render

    records = [record.as_json() for record in registry_of(settings).history(settings.model_name, alias)]
    title = f"{settings.model_name}@{alias}"
    run.screen.result({"name": settings.model_name, "alias": alias, "history": records}, render.history(title, records))


@command("nightprice serve --model listing-price@champion")
def serve(
    run: Run,
    *,
    model: Annotated[
        str | None, typer.Option(metavar="REF", help="An alias is followed; a version or a folder stays.")
    ] = None,
    registry: Registry = None,
    host: Annotated[str | None, typer.Option(metavar="H", help="Address to listen at (default: 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, metavar="P", help="Port to listen at (default: 8000).")
    ] = None,
    min_replicas: Annotated[int | None, typer.Option(min=1, help="Replicas that always run (default: 1).")] = None,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="Replicas at most (default: 1).")] = None,
) -> None:
    """Answer HTTP predictions with a model until Ctrl-C or SIGTERM. More options: NIGHTPRICE_SERVE_… variables."""
    from serve_app.deployment.run import serve

    given = {"host": host, "port": port, "min_replicas": min_replicas, "max_replicas": max_replicas}
    if registry is None and "NIGHTPRICE_SERVE_REGISTRY" not in os.environ:
        registry = run.settings().registry
    serve(
        model=model,
        registry=registry,
        **given,
        say=run.screen.note,
        ready=lambda address: run.screen.result({"address": address}, f"Ready at {address}"),
    )


@command("nightprice doctor --registry s3://bucket/models")
def doctor(run: Run, *, registry: Registry = None) -> int:
    """Check what is installed, reachable and misconfigured, with the mend, and list the settings in force."""
    from pipeline.cli import render
    from pipeline.cli.doctor import examine

    found = examine(run.settings_file, registry)
    run.screen.result(found, *render.examination(found))
    return 0 if found["ok"] else 1


def registry_of(settings: "Settings") -> "RegisteredModels":
    """The registry that the settings name."""
    from registry.registry import Registry

    return Registry(settings.registry, settings.cache_dir)


def _registry_option(registry: str | None) -> str:
    return f" --registry {registry}" if registry else ""


def main() -> None:
    """The console command `nightprice`."""
    app(prog_name="nightprice")
