"""The winner of a study, and the leaders that one validation set cannot distinguish."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import mean
from typing import Any

from sweeper.errors import NoResult, UserError
from sweeper.results import status
from sweeper.store import paths, records, studies
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.trial import FIRST, Job, TrialResult
from trainers.config import Recipe
from trainers.epoch import Epoch
from trainers.metrics.definitions import oriented

MAX_CONFIRMED = 5  # leaders to confirm


CONFIRMED_WITHOUT_ERROR = 3  # leaders to confirm if no standard error is known


def leaders(study: StudyFolder, top: int | None = None) -> list[TrialResult]:
    """Return the `top` best of the completed trials, best first; by default those tied with the best, at most five.

    If the metric has no standard error, the default is three. Raises NoResult if no trial completed.
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


def judged_on(epoch: Epoch | None) -> str:
    """Return the images that an epoch's value was measured on, such as `val` or `5 folds`."""
    return f"{len(epoch.folds)} folds" if epoch and epoch.folds else "val"


@dataclass(frozen=True)
class Winner:
    """The best trial: its result, the job as it was trained, and its values with new seeds, if there are any."""

    study: StudyFolder
    result: TrialResult
    job: Job
    confirmed: tuple[float, ...] = ()
    picked: bool = False  # by number, not as the best
    seed: int | None = None  # of its retraining, if not the trial's own

    @cached_property
    def epoch(self) -> Epoch | None:
        """The epoch that its value, weights and predictions come from; None if the trial never ran."""
        epochs = records.history(self.study.trial(self.result.number))
        return epochs[(self.result.epoch or 1) - 1] if epochs else None

    @property
    def judged_on(self) -> str:
        """The images that its value was measured on, such as `val` or `5 folds`."""
        return judged_on(self.epoch)

    @property
    def length(self) -> int:
        """Epochs for a training on all images: the number of the epoch that counts, or its mean over folds."""
        if folds := self.epoch.folds if self.epoch else ():
            return round(mean(fold.epoch for fold in folds))
        return min(self.result.epoch or self.result.planned, self.job.recipe.train.epochs)

    @property
    def metric_history(self) -> tuple[float, ...]:
        """The metric on val after each epoch; with folds, the mean over those that got so far."""
        values = [epoch.value(self.result.metric) for epoch in records.history(self.study.trial(self.result.number))]
        epochs = self.job.recipe.train.epochs
        return tuple(mean(values[index::epochs]) for index in range(min(epochs, len(values))))

    @property
    def views(self) -> bool:
        """True if the recipe's test-time views do not worsen its value on val."""
        seen = self.result.tta
        metric, minimize = self.result.metric, self.result.minimize
        return seen is None or oriented(seen.value(metric), minimize=minimize) >= self.result.oriented

    @property
    def tau(self) -> float | None:
        """The strength of the posterior correction fitted on val; None if its recipe does not request it.

        If predictions use several views, it is fitted to their mean, whose logits are flatter.
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
        """The thresholds fitted on val, for the views that its predictions use."""
        seen = self.result.tta
        return seen.thresholds if self.views and seen else self.epoch.thresholds if self.epoch else None

    @property
    def temperature(self) -> dict[str, float]:
        """The temperatures fitted on val, for the views that its predictions use."""
        seen = self.result.tta
        return seen.temperature if self.views and seen else self.epoch.temperature if self.epoch else {}


def winner(study: StudyFolder) -> Winner:
    """Return the winner of a study as in `records.winner`. Raises NoResult if no trial completed."""
    values = records.confirmed(study)
    top = records.winner(records.results(study), values)
    if top is None:
        raise NoResult(
            f"no trial of {study.name} has completed",
            where=str(study.root),
            help=f"resume it with {studies.resume_command(study)}",
        )
    return _winner(study, top, values.get(top.number, ()))


def chosen(study: StudyFolder, number: int) -> Winner:
    """Return the finished trial `number` instead of the best one. Raises UserError if there is none."""
    ended = (result for result in records.results(study) if result.state in ("COMPLETE", "PRUNED"))
    found = {result.number: result for result in ended if result.value is not None}
    if number not in found:
        raise studies.no_trial(study, number, found, " that has finished with a value")
    return replace(_winner(study, found[number], records.confirmed(study).get(number, ())), picked=True)


def untried(study: StudyFolder, recipe: Recipe, params: Mapping[str, Any]) -> Winner:
    """Return the first configuration of a study instead of the best trial, if there was no time for a search."""
    job = Job(
        study=study.name,
        trial=FIRST,
        recipe=recipe,
        params=dict(params),
        folder=study.trial(FIRST).root,
        cache=paths.cache(),
    )
    return Winner(study, records.result_of(job, [], "COMPLETE"), job)


def trained_once(study: StudyFolder) -> Winner | None:
    """Return the configuration of the final model of a study that had no time for a search; None for any other."""
    if records.results(study):
        return None
    made = [one for one in studies.finals(study) if one.done and one.untried and one.seed is None]
    job = records.read_config(made[-1].folder) if made else None
    return untried(study, job.recipe, job.params) if job else None


def _winner(study: StudyFolder, result: TrialResult, values: tuple[float, ...]) -> Winner:
    job = records.read_config(study.trial(result.number))
    if job is None:
        raise UserError(
            f"the config.json of trial {result.number} is missing", where=str(study.trial(result.number).root)
        )
    return Winner(study, result, job, values)


def recipe(won: Winner) -> str:
    """Return the winner as a search space without parameters, with a comment on its origin."""
    from sweeper.space import yaml_io

    result, name = won.result, won.study.name
    comment = (
        f"{'A trial' if won.picked else 'The best'} of study {name}: trial {result.number}, {result.metric}"
        f" {result.value:.4f} on {won.judged_on} after epoch {result.epoch} of {result.planned}."
        if won.epoch
        else f"The first configuration of study {name}, which had no time for a search."
    )
    if won.confirmed:
        comment += f"\nConfirmed with {len(won.confirmed)} new seeds: mean {mean(won.confirmed):.4f}."
    return yaml_io.recipe_yaml(f"{won.study.name[:59]}-best", won.job.computed, comment=comment)


def document(won: Winner) -> dict[str, Any]:
    """Return the winner as plain values for --json."""
    return {
        "schema_version": 1,
        "study": won.study.name,
        "result": won.result.model_dump(mode="json"),
        "confirmed": list(won.confirmed),
        "recipe": won.job.computed.model_dump(mode="json"),
        "finals": status.document(studies.status_of(won.study))["finals"],
    }
