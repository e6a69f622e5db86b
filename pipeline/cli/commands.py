"""The command line: each command reads its options, calls one function of the pipeline, and shows its result.

The functions are imported when their command runs: `nightprice --help` needs neither Ray nor any extra.
"""

import importlib.util
import keyword
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightprice.address import parse_address
from nightprice.defaults import DEFAULT_CONTRACT_NAME, NAME_PATTERN
from nightprice.errors import UsageError, closest
from nightprice.job_folder import check_outlives_job
from pipeline.cli import preflight
from pipeline.cli.command import Run, app, command
from pipeline.train import estimators
from registry import CHAMPION

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from registry.registry import Registry as RegisteredModels

__all__ = ["app", "main"]


# In help texts and examples.
NAME = DEFAULT_CONTRACT_NAME

Source = Annotated[
    str,
    typer.Option(
        metavar="URI",
        help="Raw rows: folder, glob, file, s3://, https://, postgresql://, bigquery://, delta://, iceberg://, …",
    ),
]
Sink = Annotated[
    str, typer.Option(metavar="URI", help="Where the result goes; what is live there is replaced when all is written.")
]
Data = Annotated[str, typer.Option(metavar="URI", help="What `process` wrote.")]
Model = Annotated[str, typer.Option(metavar="REF", help="NAME@champion, NAME@VERSION, NAME@latest or a folder.")]
Registry = Annotated[
    str | None, typer.Option(metavar="URI", help="Registry of models (default: the setting `registry`).")
]
Alias = Annotated[str, typer.Option(help="The alias to look at or change.")]
Name = Annotated[
    str | None, typer.Argument(help="Name of the model (default: the setting `model_name`, else the contract's).")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the history.")]
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


def _known_estimator(name: str) -> str:
    known = estimators.ESTIMATORS
    if name not in known:
        raise typer.BadParameter(f"{name} is not one of {', '.join(known)}.{closest(name, known)}")
    return name


@command("nightprice demo")
def demo(
    run: Run,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything the demo makes.")] = Path(
        "nightprice-demo"
    ),
    rows: Annotated[int, typer.Option(min=1_000, help="How many rows to generate.")] = 40_000,
) -> None:
    """All of it on generated rows: generate, process, train, evaluate, promote, predict, serve."""
    settings = run.settings()
    check_outlives_job(out.absolute(), str(out))
    from pipeline.cli.demo import demo, generator_of, show

    preflight.check_label(settings)
    generator_of(settings.load_contract())
    with run.ray("Running the demo"):
        result = demo(out, settings, rows=rows, note=run.screen.note)
    run.screen.result(result, *show(result))


@command("nightprice generate --rows 100000 --out raw --shards 8")
def generate(
    run: Run,
    *,
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write Parquet files to; it must be empty, or not exist.")
    ],
    shards: Annotated[int, typer.Option(min=1, max=100_000, help="How many files.")] = 8,
    bad_rows: Annotated[float, typer.Option(min=0, max=1, metavar="SHARE", help="Share of rows to spoil.")] = 0.02,
    seed: Seed = None,
) -> None:
    """Write raw rows as they come from the source, mess included, if the contract has a generator."""
    from pipeline.cli import render

    settings = run.settings(seed=seed)
    check_outlives_job(out.absolute(), str(out))
    contract = settings.load_contract()
    if contract.generate is None:
        raise UsageError(f'The contract "{contract.name}" has no generator. Bring raw {contract.records} of your own.')
    with run.screen.working(f"Generating {rows:,} {contract.records}"):
        result = contract.generate(rows, out, shards=shards, bad_rows=bad_rows, seed=settings.seed)
    message = (
        f"{rows:,} {contract.records} in {len(result['files'])} files in {out}, "
        f"{sum(result['bad'].values()):,} of them spoiled"
    )
    run.screen.result(result, message, render.render_next_steps(f"nightprice process --source {out} --sink dataset"))


@command("nightprice init consumption --from cars.csv --target litres --key vin")
def init(
    run: Run,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the model will be called.")],
    file: Annotated[Path, typer.Option("--from", metavar="FILE", help="A CSV file with a header.")],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="What to predict: a number, or one of a few texts.")],
    key: Annotated[
        list[str], typer.Option(metavar="COLUMN", help="What identifies a record; repeat it for several columns.")
    ],
) -> None:
    """Write a contract for a table of your own, guessed from its first rows, to correct by hand."""
    from pipeline.cli import render
    from pipeline.cli.init import contract_source

    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f'"{name}" can\'t be the name of a model: use letters, digits, ".", "_" and "-".')
    module = Path(re.sub(r"\W", "_", name) + ".py")
    if module.exists():
        raise UsageError(f"{module} exists already. Remove it, or choose another name than {name}.")
    if not module.stem.isidentifier() or keyword.iskeyword(module.stem) or importlib.util.find_spec(module.stem):
        raise UsageError(f'"{module.stem}" can\'t be the name of a module here: choose another name than {name}.')
    source = contract_source(name, file, target, key)
    module.write_text(source, "utf-8")
    contract = f"{module.stem}:CONTRACT"
    steps = render.render_next_steps(f"export NIGHTPRICE_CONTRACT={contract}", "nightprice doctor")
    run.screen.result({"file": str(module), "contract": contract}, f"{module}: correct it before you use it", steps)


@command("nightprice process --source raw --sink dataset", publishes=True)
def process(run: Run, *, source: Source, sink: Sink, max_rejected: MaxRejected = None) -> None:
    """Clean raw rows into a dataset: accepted rows, rejected rows with their reasons, and a manifest."""
    settings = run.settings(max_rejected=max_rejected)
    preflight.check_label(settings)
    preflight.check_source(source)
    preflight.check_sink(sink, source)
    with run.ray(f"Processing {parse_address(source).display}"):
        from pipeline.process import process

        manifest = process(source, sink, settings)
    from pipeline.cli import render

    run.screen.result(
        manifest,
        render.render_rows(manifest, parse_address(sink).display),
        render.render_next_steps(f"nightprice train --data {parse_address(sink).display}"),
    )


@command("nightprice train --data dataset --workers 2", publishes=True)
def train(
    run: Run,
    *,
    data: Data,
    estimator: Annotated[
        str, typer.Option(metavar="|".join(estimators.ESTIMATORS), callback=_known_estimator, help="What to train.")
    ] = estimators.DEFAULT,
    workers: Workers = 1,
    holdout_ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keys of exactly the rows to hold out, one a line (default: a share by a hash of the key).",
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="REF", help="A model to evaluate beside the new one, on the same rows.")
    ] = None,
    registry: Registry = None,
    seed: Seed = None,
) -> None:
    """Train a model, evaluate it on rows it has not seen, and publish it in the registry."""
    settings = run.settings(registry=registry, seed=seed)
    preflight.check_label(settings)
    preflight.check_dataset(data)
    if compare:
        preflight.check_model(compare, settings)
    preflight.check_training(settings, str(holdout_ids) if holdout_ids else None)
    with run.ray(f"Training {estimator} on {parse_address(data).display}"):
        from pipeline.train.train import train

        result = train(
            data,
            estimator=estimator,
            workers=workers,
            holdout_ids=str(holdout_ids) if holdout_ids else None,
            registry=settings.registry,
            settings=settings,
            compare=compare,
        )
    from pipeline.cli import render

    rows = result["rows"]
    measured = f"trained on {rows['training']:,} rows, measured on {rows['measured']:,} that were held out"
    message = f"{result['model']} is in {settings.registry}\nReport: {result['report']}"
    metrics = {result["model"]: result["metrics"]} | {other["ref"]: other["metrics"] for other in result["comparison"]}
    steps = render.render_next_steps(f"nightprice promote {result['model']} --if-better{_registry_option(registry)}")
    notes = render.render_notes(result["notes"])
    run.screen.result(result, render.render_metrics(metrics), measured, *notes, message, steps)


@command(f"nightprice evaluate --model {NAME}@champion --data dataset")
def evaluate(
    run: Run,
    *,
    model: Model,
    data: Data,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Only on the rows that the model's own training held out.")
    ] = False,
    registry: Registry = None,
) -> None:
    """Measure a model on the accepted rows of a dataset."""
    settings = run.settings(registry=registry)
    preflight.check_contract(settings)
    preflight.check_model(model, settings)
    preflight.check_dataset(data)
    with run.ray(f"Evaluating {model} on {parse_address(data).display}"):
        from pipeline.datasets import open_dataset
        from pipeline.evaluation.evaluate import evaluate_dataset
        from pipeline.split import Split

        artifact = registry_of(settings).load(model)
        dataset = open_dataset(data, settings.load_contract())
        split = Split.of_model(artifact.manifest, artifact.folder) if holdout else None
        evaluation = evaluate_dataset(artifact, dataset, split)
    from pipeline.cli import render

    evaluated_on = {"uri": dataset.address.display, "version": dataset.version}
    run.screen.result(
        {"model": artifact.ref, "dataset": evaluated_on, **evaluation},
        render.render_metrics({artifact.ref: evaluation["metrics"]}),
        *render.render_evaluation(evaluation),
    )


@command(f"nightprice predict --model {NAME}@champion --source raw --sink scored", publishes=True)
def predict(
    run: Run, *, model: Model, source: Source, sink: Sink, max_rejected: MaxRejected = None, registry: Registry = None
) -> None:
    """Score raw rows in bulk; those that can't be scored are written as rejected, with their reasons."""
    settings = run.settings(max_rejected=max_rejected, registry=registry)
    preflight.check_contract(settings)
    preflight.check_model(model, settings)
    preflight.check_source(source)
    preflight.check_sink(sink, source)
    with run.ray(f"Scoring {parse_address(source).display} with {model}"):
        from pipeline.predict import predict

        manifest = predict(model, source, sink, settings)
    from pipeline.cli import render

    run.screen.result(
        manifest, f"Scored by {manifest['model']}", render.render_rows(manifest, parse_address(sink).display)
    )


@command(f"nightprice promote {NAME}@latest --if-better", publishes=True)
def promote(
    run: Run,
    *,
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="The version to promote: NAME@latest, NAME@VERSION or another alias.")
    ],
    alias: Alias = CHAMPION,
    if_better: Annotated[
        bool, typer.Option("--if-better", help="Only if it beats the version in force on the same held-out rows.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if it has other bins, or knows none of the places of what is in force."),
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
    """Let an alias name a version: services that follow the alias score with it from then on."""
    if data and not if_better:
        raise UsageError("--data is what --if-better compares on. Add --if-better, or leave --data out.")
    if force and if_better:
        raise UsageError("--force promotes without a comparison, --if-better compares. Leave one of them out.")
    settings = run.settings(registry=registry)
    registered = registry_of(settings)
    name, version = registered.resolve(ref)
    before = registered.current(name, alias)
    if not force:
        registered.check_replacement(name, version, alias)
    # Repeated after a promotion that went through, by a schedule for example, this is not a refusal.
    if if_better and not (before and before.version == version):
        if before:
            preflight.check_contract(settings)
            preflight.check_dataset(data or registered.manifest(f"{name}@{version}")["dataset"]["uri"])
        with run.ray(f"Comparing {name}@{version} with {name}@{alias}"):
            champion = f"{name}@{alias}" if before else None
            verdict = _gate(registered, f"{name}@{version}", champion, data, settings)
        reason = ": ".join(filter(None, (reason, verdict)))
    record = registered.promote(name, version, alias, reason, expected=before.number if before else 0, force=force)
    if before and before.number == record.number:
        message = f"{name}@{alias} is {record.version} already: nothing was changed"
    else:
        message = f"{name}@{alias} is now {record.version}, before {record.previous or 'none'}\n{record.why}".rstrip()
    from pipeline.cli import render

    options = ("" if alias == CHAMPION else f" --alias {alias}") + _registry_option(registry)
    back = [f"nightprice rollback {name}{options}"] if before else []
    steps = render.render_next_steps(f"nightprice history {name}{options}", *back)
    run.screen.result({"model": f"{name}@{record.version}", "alias": alias, **record.as_json()}, message, steps)


def _gate(
    registered: "RegisteredModels", challenger: str, champion: str | None, data: str | None, settings: "Settings"
) -> str:
    """Why the challenger may take the place. Raises GateRefused if it may not."""
    from pipeline.errors import GateRefused
    from pipeline.evaluation.gate import decide

    decision = decide(registered.load(challenger), registered.load(champion) if champion else None, settings, data)
    if not decision.promote:
        stays = f"{champion} stays in force" if champion else "If it is to be used nevertheless, leave --if-better out"
        raise GateRefused(f"{challenger} was not promoted: {decision.reason}. {stays}.")
    return decision.reason


@command(f"nightprice rollback {NAME} --reason 'more complaints'", publishes=True)
def rollback(
    run: Run, *, name: Name = None, alias: Alias = CHAMPION, reason: Reason = "", registry: Registry = None
) -> None:
    """Let an alias name again what it named before its last promotion."""
    settings = run.settings(registry=registry, model_name=name)
    model = settings.model()
    record = registry_of(settings).rollback(model, alias, reason)
    message = f"{model}@{alias} is {record.version} again, before {record.previous}"
    run.screen.result({"model": f"{model}@{record.version}", "alias": alias, **record.as_json()}, message)


@command("nightprice models")
def models(run: Run, *, name: Name = None, registry: Registry = None) -> None:
    """List the versions of a model, newest first, with their metrics and aliases."""
    settings = run.settings(registry=registry, model_name=name)
    from pipeline.cli import render

    model, registered = settings.model(), registry_of(settings)
    versions, aliases = registered.versions(model), registered.aliases(model)
    by_version: dict[str, list[str]] = {}
    for alias, record in aliases.items():
        by_version.setdefault(record.version, []).append(alias)
    result = {
        "name": model,
        "versions": versions,
        "aliases": {alias: record.version for alias, record in aliases.items()},
    }
    run.screen.result(result, render.render_models(model, versions, by_version))


@command(f"nightprice history {NAME} --alias champion")
def history(run: Run, *, name: Name = None, alias: Alias = CHAMPION, registry: Registry = None) -> None:
    """List every change of an alias, newest first: who, when, why."""
    settings = run.settings(registry=registry, model_name=name)
    from pipeline.cli import render

    model = settings.model()
    records = [record.as_json() for record in registry_of(settings).history(model, alias)]
    result = {"name": model, "alias": alias, "history": records}
    run.screen.result(result, render.render_history(f"{model}@{alias}", records))


@command(f"nightprice serve --model {NAME}@champion")
def serve(
    run: Run,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="An alias is followed; a version or a folder stays (default: the contract's name@champion).",
        ),
    ] = None,
    registry: Registry = None,
    host: Annotated[str | None, typer.Option(metavar="H", help="Address to listen at (default: 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, metavar="P", help="Port to listen at (default: 8000).")
    ] = None,
    min_replicas: Annotated[int | None, typer.Option(min=1, help="Replicas that always run (default: 1).")] = None,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of replicas (default: what CPUs allow).")
    ] = None,
) -> None:
    """Answer HTTP predictions with a model until Ctrl-C or SIGTERM. More options: NIGHTPRICE_SERVE_… variables."""
    from serve_app.deployment.run import serve

    settings = run.settings()
    if registry is None and "NIGHTPRICE_SERVE_REGISTRY" not in os.environ:
        registry = settings.registry
    with ExitStack() as starting:
        starting.enter_context(run.screen.working("Starting the service"))

        def ready(address: str) -> None:
            starting.close()
            run.screen.result({"address": address}, f"Ready at {address}")

        serve(
            contract=settings.contract,
            model=model,
            registry=registry,
            host=host,
            port=port,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            say=run.screen.note,
            ready=ready,
        )


@command("nightprice doctor --registry s3://bucket/models")
def doctor(run: Run, *, registry: Registry = None) -> int:
    """Check what is installed, reachable and misconfigured, say how to fix it, and list the settings in force."""
    from pipeline.cli import render
    from pipeline.cli.doctor import examine

    examination = examine(run.settings_file, registry)
    run.screen.result(examination, *render.render_examination(examination))
    return 0 if examination["ok"] else 1


def registry_of(settings: "Settings") -> "RegisteredModels":
    """The registry that the settings name."""
    from registry.registry import Registry

    return Registry(settings.registry, settings.cache_dir)


def _registry_option(registry: str | None) -> str:
    return f" --registry {registry}" if registry else ""


def main() -> None:
    """The console command `nightprice`."""
    app(prog_name="nightprice")
