"""The winner of a study, and the leaders that one validation set cannot tell apart."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import mean
from typing import Any

from sweeper.errors import NoResult, UserError
from sweeper.results import status
from sweeper.store import paths, records, studies
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.trial import FIRST, Job, TrialResult
from trainers.config import Recipe
from trainers.epoch import Epoch
from trainers.metrics.definitions import oriented

MAX_CONFIRMED = 5  # leaders that are confirmed


CONFIRMED_WITHOUT_ERROR = 3  # leaders where no standard error is known


def leaders(study: StudyFolder, top: int | None = None) -> list[TrialResult]:
    """The `top` best of the completed trials, best first; when left out those that val cannot tell from the best, at
    most five.

    Three where the metric has no standard error. Raises NoResult where no trial completed.
    """
    results = records.results(study)
    ranked = [row for row in Ranking.of(results, study).rows if row["state"] == "COMPLETE"]
    if not ranked:
        raise NoResult(f"no trial of {study.name} has completed", where=str(study.root))
    tied = [row["trial"] for row in ranked if row["tied"]][:MAX_CONFIRMED]
    best = [row["trial"] for row in ranked]
    numbers = best[:top] if top else tied or best[:CONFIRMED_WITHOUT_ERROR]
    found = {result.number: result for result in results}
    return [found[number] for number in numbers]


def confirmed(study: StudyFolder) -> Mapping[int, list[float]]:
    """The values with new seeds that are on record, by trial."""
    values: dict[int, list[float]] = {}
    for path in sorted(study.confirmations.glob("*/result.json")):
        result = records.read_result(RunFolder(path.parent))
        if result and result.value is not None:
            values.setdefault(result.number, []).append(result.value)
    return values


def judged_on(epoch: Epoch | None) -> str:
    """Of what the value after an epoch is, in words."""
    return f"{len(epoch.folds)} folds" if epoch and epoch.folds else "val"


@dataclass(frozen=True)
class Winner:
    """The best trial: how it ended, the job as it was trained, and its values with new seeds, if it has some."""

    study: StudyFolder
    result: TrialResult
    job: Job
    confirmed: tuple[float, ...] = ()
    picked: bool = False  # by its number, and not as the best

    @cached_property
    def epoch(self) -> Epoch | None:
        """The one whose value, weights and predictions are its own; None where it was not tried."""
        epochs = records.history(self.study.trial(self.result.number))
        return epochs[(self.result.epoch or 1) - 1] if epochs else None

    @property
    def judged_on(self) -> str:
        """Of what its value is, in words."""
        return judged_on(self.epoch)

    @property
    def length(self) -> int:
        """Epochs of a training on all images: up to the one that counts, of folds their mean."""
        if folds := self.epoch.folds if self.epoch else ():
            return round(mean(fold.epoch for fold in folds))
        return min(self.result.epoch or self.result.planned, self.job.recipe.train.epochs)

    @property
    def metric_history(self) -> tuple[float, ...]:
        """The metric on val after each epoch; of folds the mean of those that came so far."""
        values = [epoch.value(self.result.metric) for epoch in records.history(self.study.trial(self.result.number))]
        epochs = self.job.recipe.train.epochs
        return tuple(mean(values[index::epochs]) for index in range(min(epochs, len(values))))

    @property
    def views(self) -> bool:
        """Whether its predictions gain, or at least do not lose, by the recipe's test-time views on val."""
        seen = self.result.tta
        metric, minimize = self.result.metric, self.result.minimize
        return seen is None or oriented(seen.value(metric), minimize=minimize) >= self.result.oriented

    @property
    def tau(self) -> float | None:
        """Strength of the posterior correction that it fitted on val; None where its recipe does not ask for that.

        Where predictions take several views, it is fitted to their mean, whose logits are flatter.
        """
        if not self.job.recipe.train.posthoc_logit_adjustment.fit:
            return None
        seen = self.result.tta
        fitted = self.epoch.corrected.get(self.result.metric) if self.epoch else None
        if self.views and seen and seen.tau is not None:
            return seen.tau
        return fitted.tau if fitted else None

    @property
    def thresholds(self) -> dict[str, tuple[float, ...]] | None:
        """The thresholds that it fitted on val, to the views that its predictions take."""
        seen = self.result.tta
        return seen.thresholds if self.views and seen else self.epoch.thresholds if self.epoch else None

    @property
    def temperature(self) -> dict[str, float]:
        """The temperatures that it fitted on val, to the views that its predictions take."""
        seen = self.result.tta
        return seen.temperature if self.views and seen else self.epoch.temperature if self.epoch else {}


def winner(study: StudyFolder) -> Winner:
    """The completed trial with the best value; among confirmed leaders the one with the best mean over new seeds.

    Confirmations count as long as no later trial has overtaken those that were confirmed. Raises NoResult where no
    trial completed.
    """
    results = records.results(study)
    top = records.best(results)
    if top is None:
        raise NoResult(
            f"no trial of {study.name} has completed",
            where=str(study.root),
            help=f"go on with {studies.resume_command(study)}",
        )
    values = confirmed(study)
    if top.number in values:
        means = {n: oriented(mean(again), minimize=top.minimize) for n, again in values.items()}
        number = max(means, key=lambda n: (means[n], -n))
        top = next(result for result in results if result.number == number)
    return _winner(study, top, tuple(values.get(top.number, ())))


def chosen(study: StudyFolder, number: int) -> Winner:
    """A trial that has ended in the place of the best one. Raises UserError where there is none of that number."""
    ended = (result for result in records.results(study) if result.state in ("COMPLETE", "PRUNED"))
    found = {result.number: result for result in ended if result.value is not None}
    if number not in found:
        raise studies.no_trial(study, number, found, " that has ended with a value")
    return replace(_winner(study, found[number], tuple(confirmed(study).get(number, ()))), picked=True)


def untried(study: StudyFolder, recipe: Recipe, params: Mapping[str, Any]) -> Winner:
    """The first configuration of a study in the place of the best trial, where there was no time for a search."""
    job = Job(
        study=study.name,
        trial=FIRST,
        recipe=recipe,
        params=dict(params),
        folder=study.trial(FIRST).root,
        cache=paths.cache(),
    )
    return Winner(study, records.result_of(job, [], "COMPLETE"), job)


def _winner(study: StudyFolder, result: TrialResult, values: tuple[float, ...]) -> Winner:
    job = records.read_config(study.trial(result.number))
    if job is None:
        raise UserError(f"trial {result.number} has lost its config.json", where=str(study.trial(result.number).root))
    return Winner(study, result, job, values)


def recipe(won: Winner) -> str:
    """The winner as a search space with nothing left open, which says where it comes from."""
    from sweeper.space import yaml_io

    result = won.result
    comment = (
        f"{'A trial' if won.picked else 'The best'} of study {won.study.name}: trial {result.number}, {result.metric}"
        f" {result.value:.4f} on {won.judged_on} after epoch {result.epoch} of {result.planned}."
    )
    if won.confirmed:
        comment += f"\nConfirmed with {len(won.confirmed)} new seeds: mean {mean(won.confirmed):.4f}."
    return yaml_io.recipe_yaml(f"{won.study.name[:59]}-best", won.job.computed, comment=comment)


def document(won: Winner) -> dict[str, Any]:
    """The same for --json."""
    return {
        "schema_version": 1,
        "study": won.study.name,
        "result": won.result.model_dump(mode="json"),
        "confirmed": list(won.confirmed),
        "recipe": won.job.computed.model_dump(mode="json"),
        "finals": status.document(studies.status_of(won.study))["finals"],
    }
