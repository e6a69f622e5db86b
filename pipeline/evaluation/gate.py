"""Whether a challenger may take the champion's place: both on the same holdout rows, by the rule in the settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from nightprice.errors import UsageError
from pipeline.datasets import Dataset, open_dataset
from pipeline.evaluation.evaluate import evaluate_dataset
from pipeline.evaluation.metrics import METRIC
from pipeline.settings import GateSettings, Settings
from pipeline.split import Split
from registry.artifact import Artifact
from registry.manifest import Evaluation
from registry.replacement import difference

_NONE_YET = "nothing is in force there yet"


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why, in one sentence for the record."""

    promote: bool
    reason: str
    challenger: Evaluation | None = None
    champion: Evaluation | None = None


def decide(challenger: Artifact, champion: Artifact | None, settings: Settings, data: str | None = None) -> Decision:
    """Evaluate both models on the challenger's holdout rows and compare them by `settings.gate`.

    The rows are those of the challenger's dataset (or of `data`) that its own split held out. Without a champion the
    challenger must beat the majority label, by the evaluation of its training.
    Raises StoreError if the dataset is gone: name another place of it as `data`.
    """
    if champion is None:
        return _first(challenger)
    if challenger.version == champion.version:
        return Decision(False, f"{challenger.ref} is the champion already")
    if problem := difference(challenger.manifest, champion.manifest):
        raise UsageError(
            f"{challenger.ref} and {champion.ref} can't be compared: {problem}. Train it under a model_name of its "
            "own, or promote it with --force if all callers expect the change."
        )
    split = Split.of_model(challenger.manifest, challenger.folder)
    dataset = open_dataset(data or challenger.manifest["dataset"]["uri"], settings.load_contract())
    new = evaluate_dataset(challenger, dataset, split, champion)
    old = evaluate_dataset(champion, dataset, split, challenger)
    verdict = compare(new, old, settings.gate)
    notes = _notes(challenger, champion, dataset)
    return Decision(verdict.promote, f"{verdict.reason}{notes}", new, old)


def _first(challenger: Artifact) -> Decision:
    evaluation = challenger.manifest.get("evaluation")
    if evaluation is None:
        return Decision(True, f"{_NONE_YET}, and the model records no evaluation")
    accuracy, majority = evaluation["metrics"]["accuracy"], evaluation["majority"]
    figures = (
        f'accuracy {accuracy:.4f} against {majority["accuracy"]:.4f} of always answering "{majority["label"]}", on '
        f"{evaluation['rows']:,} holdout rows"
    )
    if accuracy is None or accuracy <= majority["accuracy"]:
        return Decision(False, f"{_NONE_YET}, and it does not beat the majority: {figures}", evaluation)
    return Decision(True, f"{_NONE_YET}, and it beats the majority: {figures}", evaluation)


def compare(new: Evaluation, old: Evaluation, rule: GateSettings) -> Decision:
    """Whether the first evaluation is better than the second by more than the rule's least improvement.

    Both are on the rows that both models can score; `unscorable` counts what the other alone can.
    Raises UsageError if the metric can't be had from these rows.
    """
    challenger, champion = new["metrics"].get(rule.metric), old["metrics"].get(rule.metric)
    if challenger is None or champion is None:
        raise UsageError(
            f"The metric {rule.metric} is not defined on these rows. Choose another one as gate.metric in the settings."
        )
    if lost := _listed(new["unscorable"]):
        # A model must not win by refusing rows.
        return Decision(False, f"the challenger can't score all holdout rows that the champion can: {lost}", new, old)
    gain = champion - challenger if METRIC[rule.metric].lower_is_better else challenger - champion
    promote = gain > 0 and gain >= rule.min_improvement
    figures = f"{rule.metric} {challenger:.4f} against {champion:.4f} on the same {new['rows']:,} holdout rows"
    needed = f"an improvement of at least {rule.min_improvement:g}" if rule.min_improvement else "an improvement"
    gained = f"; besides, the challenger alone can score {more}" if (more := _listed(old["unscorable"])) else ""
    verdict = f"{'better' if promote else 'not better'} by the rule, which asks for {needed}"
    return Decision(promote, f"{figures}: {verdict}{gained}", new, old)


def _listed(unscorable: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} ({count:,})" for reason, count in unscorable.items() if count)


def _notes(challenger: Artifact, champion: Artifact, dataset: Dataset) -> str:
    """What a reader of the record must know about the comparison."""
    notes = []
    trained_on = challenger.manifest["dataset"]["version"]
    if dataset.version != trained_on:
        notes.append(f"the dataset is now at {dataset.version}, the challenger was trained on {trained_on}")
    keys = ("kind", "holdout_share", "ids")
    if [challenger.manifest["split"].get(key) for key in keys] != [champion.manifest["split"].get(key) for key in keys]:
        notes.append("the champion was split in another way and may have learned from some of these rows")
    return f" ({'; '.join(notes)})" if notes else ""
