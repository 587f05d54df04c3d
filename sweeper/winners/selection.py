"""The models of an ensemble, selected: trials that are best together on val, or one trial with several seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sweeper import text
from sweeper.engine import prepare
from sweeper.errors import UserError
from sweeper.results import winner
from sweeper.results.winner import Winner
from sweeper.statistics import ensemble
from sweeper.store import records, study_file
from sweeper.store.paths import StudyFolder
from sweeper.winners.confirm import STRIDE
from trainers import extensions
from trainers.data import images
from trainers.data.splitting import judged_on
from trainers.data.table import label_matrix
from trainers.epoch import Scores
from trainers.support.checksummed import load_array

if TYPE_CHECKING:
    from trainers.data.layouts import Table


SECOND_SEED = 0.01  # overall and mean class accuracy that a second seed gains (docs/explanation/recipe-parts.md)


@dataclass(frozen=True)
class Selection:
    """The models of an ensemble to train, largest share of the mean first."""

    best: Winner  # the best trial alone, or the trial that is trained with several seeds
    members: Sequence[Winner]
    shares: Sequence[float]
    most: int  # members allowed
    joint: "Joint | None" = None  # unknown for several seeds of a trial

    @property
    def alone(self) -> bool:
        """True if no other trial improves the best one."""
        return len(self.members) == 1

    @property
    def value(self) -> float | None:
        """The metric of the mean on val, if it is known."""
        return self.joint.val.value(self.best.result.metric) if self.joint else None

    @property
    def line(self) -> str:
        """A sentence on the value of the ensemble."""
        if self.joint:
            return self._gained(self.joint)
        seeds = text.join_and([str(_seed(one)) for one in self.members])
        what = f"trial {self.best.result.number}" if self.best.epoch else "the first configuration"
        return f"{what} is trained with the seeds {seeds}, and their logits are averaged"

    def _gained(self, joint: "Joint") -> str:
        metric, study, on = self.best.result.metric, self.best.study.name, self.best.judged_on
        if self.alone:
            return f"no other trial of {study} improves trial {self.best.result.number} on {on}, so it is used alone"
        value = text.format_value(self.value, joint.val.standard_errors.get(metric))
        own, recorded = text.format_value(joint.own), text.format_value(self.best.result.value)
        other = f" ({recorded} on record, with thresholds or before its temperature)" if own != recorded else ""
        interval = f"; gain, 95 %: {joint.gain[0]:+.4f} to {joint.gain[1]:+.4f}" if joint.gain else ""
        alone = f"trial {self.best.result.number} alone {own}{other}"
        caution = "They were chosen on these images, so the gain is slightly optimistic"
        trials = text.join_and([str(one.result.number) for one in self.members])
        return f"trials {trials} together: {metric} on {on} {value}, {alone}{interval}. {caution}"


@dataclass(frozen=True)
class Joint:
    """The scores of several trials together on val, which also chose them."""

    own: float  # value of the best trial alone, measured in the same way as the mean's
    val: Scores
    temperature: Mapping[str, float]
    gain: tuple[float, float] | None  # 95 % interval of the gain of the mean over the best trial alone

    def beats_second_seed(self, metric: str, *, minimize: bool) -> bool:
        """True if the mean gains at least as much on val as a second seed is expected to. That is unknown for metrics
        to minimize, such as the loss: there, any gain counts if its interval excludes zero.
        """
        if minimize:
            return self.gain is None or self.gain[1] < 0
        return self.val.value(metric) - self.own >= SECOND_SEED


def pair(won: Winner) -> Selection:
    """Select two models: the best trial and one of another backbone if that gains more on val than a second seed is
    expected to, else `won` with two seeds.

    Among trials of one backbone, a second seed of the best gains at least as much as the best partner on val
    (docs/explanation/recipe-parts.md#two-seeds-of-one-trial).
    """
    others = {one.backbone for one in records.results(won.study)} - {won.result.backbone}
    if others and won.study.trial(won.result.number).val_logits.exists():
        chosen = select(won.study, 2, other_backbones=True)
        best = chosen.best.result
        if not chosen.alone and chosen.joint and chosen.joint.beats_second_seed(best.metric, minimize=best.minimize):
            return chosen
    return repeated(won, 2)


def repeated(won: Winner, seeds: int) -> Selection:
    """Return an ensemble of one trial trained with several seeds, the first of them its own."""
    _refuse_forbidden(won.study)
    new = [replace(won, seed=won.job.recipe.train.seed + STRIDE * number) for number in range(1, seeds)]
    return Selection(won, (won, *new), (1 / seeds,) * seeds, most=seeds)


def _seed(one: Winner) -> int:
    return one.job.recipe.train.seed if one.seed is None else one.seed


def select(study: StudyFolder, most: int, *, other_backbones: bool = False) -> Selection:
    """Select at most `most` models whose mean is best on val, among all completed trials with stored predictions.

    With `other_backbones`, trials of the best trial's backbone do not join it. All see the same images, framed and
    decoded as for the best trial.
    """
    _refuse_forbidden(study)
    if winner.trained_once(study):
        help = f"sweep best {study.name} --seeds 2 --export submission combines two seeds of its only configuration"
        raise UserError(f"{study.name} has no trials to combine: there was no time for a search", help=help)
    best = winner.winner(study)
    recipe = best.job.recipe
    extensions.use(extensions.stored(study.extensions, recipe.extensions))
    table = prepare.checked(recipe.data, study).table
    study_file.same_data(study, images.fingerprint(table), recipe.data.root)
    labels = label_matrix(judged_on(table, recipe.folds).split("val"), table.categories)
    judge = ensemble.Judge(labels, table.categories, recipe.metric, recipe.further, best.result.minimize)
    candidates = {one.result.number: one for one in _candidates(best, other_backbones=other_backbones)}
    logits = {number: _logits(one, table) for number, one in candidates.items()}
    if best.result.number not in logits:
        raise _no_predictions(best)
    shares = ensemble.select(logits, best.result.number, judge.score, most)
    order = sorted(shares, key=lambda number: (-shares[number], -candidates[number].result.oriented))
    mean = ensemble.mean(logits, shares)
    multi = not recipe.train.thresholds.fit
    joint = Joint(
        own=judge.scores(logits[best.result.number]).value(recipe.metric),
        val=judge.with_errors(mean),
        temperature=judge.temperature(mean, multi=multi),
        gain=judge.gain(mean, logits[best.result.number]),
    )
    members, weights = [candidates[number] for number in order], [shares[number] for number in order]
    return Selection(best, members, weights, most, joint)


def _refuse_forbidden(study: StudyFolder) -> None:
    """Raise UserError if the rules of the study allow only one model."""
    if not (study_file.read(study) or {}).get("rules", {}).get("ensemble", True):
        help = f"sweep best {study.name} --export submission makes the final model of the best trial alone"
        raise UserError("rules.ensemble: false allows only one model", where=str(study.space), help=help)


def _candidates(best: Winner, *, other_backbones: bool) -> Iterator[Winner]:
    """Yield the completed trials that can be combined with the best one, best first; the earlier of equals first."""
    framing, study, first = best.job.recipe.train.framing, best.study, best.result
    complete = [one for one in records.results(study) if one.state == "COMPLETE" and one.value is not None]
    if other_backbones:
        complete = [one for one in complete if one.number == first.number or one.backbone != first.backbone]
    for result in sorted(complete, key=lambda one: (-one.oriented, one.number)):
        one = winner.chosen(study, result.number)
        if study.trial(result.number).val_logits.exists() and one.job.recipe.train.framing == framing:
            yield one


def _logits(one: Winner, table: "Table") -> ensemble.Logits:
    """Return a trial's logits on val, divided by its temperatures."""
    found = load_array(one.study.trial(one.result.number).val_logits)
    return ensemble.divided(found, table.categories, one.epoch.temperature if one.epoch else {})


def _no_predictions(best: Winner) -> UserError:
    where = best.study.trial(best.result.number).val_logits
    help = f"sweep best {best.study.name} --export submission makes the final model of the best trial alone"
    what = "an ensemble is chosen by predictions on val, but those of the best trial are missing"
    return UserError(what, where=str(where), help=help)


# --------------------------------------------------------------------------------------- output
HEADERS = ("trial", "seed", "share", "backbone", "value")


def cells(chosen: Selection) -> list[list[str]]:
    return [
        [
            str(one.result.number),
            str(_seed(one)),
            f"{share:.0%}",
            one.result.backbone,
            text.format_value(one.result.value, one.result.standard_error) if one.seed is None else "-",
        ]
        for one, share in zip(chosen.members, chosen.shares, strict=True)
    ]


def document(chosen: Selection) -> dict[str, Any]:
    """Return the selection as plain values for --json."""
    metric, joint, best = chosen.best.result.metric, chosen.joint, chosen.best.result
    members = [
        {
            "trial": one.result.number,
            "seed": _seed(one),
            "share": share,
            "backbone": one.result.backbone,
            "value": one.result.value,
        }
        for one, share in zip(chosen.members, chosen.shares, strict=True)
    ]
    return {
        "schema_version": 1,
        "study": chosen.best.study.name,
        "metric": metric,
        "members": members,
        "value": chosen.value,
        "standard_error": joint.val.standard_errors.get(metric) if joint else None,
        "best": {"trial": best.number, "value": joint.own if joint else best.value},
        "gain": list(joint.gain) if joint and joint.gain else None,
    }
