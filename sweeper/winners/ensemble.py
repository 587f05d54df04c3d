"""Ensembles: trials of a study whose models are better together, chosen on val, retrained, and put into one file."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper import text
from sweeper.engine import prepare, retraining
from sweeper.errors import UserError
from sweeper.results import winner
from sweeper.results.winner import Winner
from sweeper.statistics import ensemble
from sweeper.store import paths, records, studies, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.terminal.output import print_message
from sweeper.tracking import catching_up
from sweeper.trial import Done, Ensemble, EnsembleMember, Job, TrialResult
from sweeper.winners import final
from sweeper.winners.final import Final
from trainers import extensions
from trainers.data import images
from trainers.data.splitting import judged_on
from trainers.data.table import label_matrix
from trainers.epoch import Epoch, Scores
from trainers.support.checksummed import load_array

if TYPE_CHECKING:
    from sweeper.system.devices import Slot
    from trainers.data.layouts import Table

NAME = "ensemble"


@dataclass(frozen=True)
class Selection:
    """The members, largest share first, and their joint scores on val, which also chose them."""

    best: Winner  # the best trial alone
    members: Mapping[int, Winner]
    shares: Mapping[int, float]
    most: int  # members allowed
    own: float  # value of the best trial alone, measured in the same way as the mean's
    val: Scores
    temperature: Mapping[str, float]
    gain: tuple[float, float] | None  # 95 % interval of the gain of the mean over the best trial alone

    @property
    def alone(self) -> bool:
        """True if no other trial improves the best one."""
        return len(self.members) == 1

    @property
    def value(self) -> float:
        return self.val.value(self.best.result.metric)

    @property
    def line(self) -> str:
        """A sentence on the value of the ensemble."""
        metric, study, on = self.best.result.metric, self.best.study.name, self.best.judged_on
        if self.alone:
            return f"no other trial of {study} improves trial {self.best.result.number} on {on}, so it is used alone"
        value = text.format_value(self.value, self.val.standard_errors.get(metric))
        own, recorded = text.format_value(self.own), text.format_value(self.best.result.value)
        other = f" ({recorded} on record, with thresholds or before its temperature)" if own != recorded else ""
        interval = f"; gain, 95 %: {self.gain[0]:+.4f} to {self.gain[1]:+.4f}" if self.gain else ""
        alone = f"trial {self.best.result.number} alone {own}{other}"
        caution = "They were chosen on these images, so the gain is slightly optimistic"
        return f"{metric} on {on} {value}, {alone}{interval}. {caution}"


def select(study: StudyFolder, most: int) -> Selection:
    """Select at most `most` models whose mean is best on val, among all completed trials with stored predictions.

    All see the same images, framed and decoded as for the best trial.
    """
    _refuse_forbidden(study)
    best = winner.winner(study)
    recipe = best.job.recipe
    extensions.use(extensions.stored(study.extensions, recipe.extensions))
    table = prepare.checked(recipe.data).table
    study_file.same_data(study, images.fingerprint(table), recipe.data.root)
    labels = label_matrix(judged_on(table, recipe.folds).split("val"), table.categories)
    judge = ensemble.Judge(labels, table.categories, recipe.metric, recipe.further, best.result.minimize)
    candidates = {one.result.number: one for one in _candidates(best)}
    logits = {number: _logits(one, table) for number, one in candidates.items()}
    if best.result.number not in logits:
        raise _no_predictions(best)
    shares = ensemble.select(logits, best.result.number, judge.score, most)
    order = sorted(shares, key=lambda number: (-shares[number], -candidates[number].result.oriented))
    mean = ensemble.mean(logits, shares)
    multi = not recipe.train.thresholds.fit
    return Selection(
        best=best,
        members={number: candidates[number] for number in order},
        shares=shares,
        most=most,
        own=judge.scores(logits[best.result.number]).value(recipe.metric),
        val=judge.with_errors(mean),
        temperature=judge.temperature(mean, multi=multi),
        gain=judge.gain(mean, logits[best.result.number]),
    )


def _refuse_forbidden(study: StudyFolder) -> None:
    """Raise UserError if the rules of the study allow only one model."""
    if not (study_file.read(study) or {}).get("rules", {}).get("ensemble", True):
        help = f"sweep best {study.name} --export submission makes the final model of the best trial alone"
        raise UserError("rules.ensemble: false allows only one model", where=str(study.space), help=help)


def _candidates(best: Winner) -> Iterator[Winner]:
    """Yield the completed trials that can be combined with the best one, best first; the earlier of equals first."""
    framing, study = best.job.recipe.train.framing, best.study
    complete = [one for one in records.results(study) if one.state == "COMPLETE" and one.value is not None]
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


# -------------------------------------------------------------------------------------- final model
def export(
    chosen: Selection, slots: "Sequence[Slot]", *, again: bool = False, mlflow: bool = True, events: bool = False
) -> Final:
    """Retrain the members on train and val, side by side on `slots`, combine them, predict test, and pack the result.

    Existing final models of members, finished or not, are reused unless `again`. A trial that is used alone is
    exported as such. On a full disk, this waits for space and then continues.
    """
    if chosen.alone:
        return final.export(chosen.best, slots[:1], again=again, mlflow=mlflow, events=events)
    study, recipe = chosen.best.study, chosen.best.job.recipe
    job, places = _started(chosen, again=again)
    folder, waiting = RunFolder(job.folder), [one for one in places if records.read_result(one) is None]
    if records.read_result(folder) is not None and not waiting:
        table = prepare.checked(recipe.data).table
        if study_file.predicts(folder, images.fingerprint(table), images.fingerprint_of(table, "test")):
            if mlflow:
                catching_up.catch_up([study], print_message)
            return final.packed(folder, table, recipe.data, recipe.metric, known=True)
    return retraining.session(
        study,
        recipe,
        slots,
        lambda session: _trained(chosen, places, job, session),
        spent_on=waiting or [folder],
        mlflow=mlflow,
        events=events,
    )


def _trained(
    chosen: Selection, places: Mapping[RunFolder, Winner], job: Job, session: retraining.RetrainingSession
) -> Final:
    """Train the remaining members, then make the ensemble, unless it was finished before a full disk interrupted."""
    final.train(places, session)
    for one in places:
        one.checkpoint.unlink(missing_ok=True)  # its content is in model.safetensors
    folder = RunFolder(job.folder)

    def make_result(job: Job, ended: Done, epochs: list[Epoch]) -> TrialResult:
        return final.record(chosen.best, job, ended.scores, epochs, session.table)

    known = records.read_result(folder) is not None
    test = images.fingerprint_of(session.table, "test")
    if not known:
        session.observers.note(f"{job.title}: {job.ensemble.name if job.ensemble else ''}; {chosen.line}")
        session.train([job], make_result)
    elif not study_file.predicts(folder, images.fingerprint(session.table), test):
        final.predict_again(chosen.best, job, session)
    return final.packed(folder, session.table, job.recipe.data, chosen.best.result.metric, known=known)


def _started(chosen: Selection, *, again: bool) -> tuple[Job, dict[RunFolder, Winner]]:
    """Return the ensemble on record (an unfinished one first) or a new one, and the final models of its members.

    It is recorded before its members are trained, so that the study shows what remains to be done. An unfinished one
    with other members holds nothing yet and is removed.
    """
    study = chosen.best.study
    known = [one for one in studies.finals(study) if one.members]
    for one in reversed(known):
        job = records.read_config(one.folder)
        if job and job.ensemble and _is_of(job.ensemble, chosen) and not (one.done and again):
            places = {study.final(m.final): chosen.members[m.trial] for m in job.ensemble.members}
            return job.model_copy(update={"folder": one.folder.root, "cache": paths.cache()}), places
    for one in known:
        if not one.done:
            shutil.rmtree(one.folder.root)
    made = {final.place(one, again=again)[0]: one for one in chosen.members.values()}
    job = _job(chosen, made)
    retraining.begin(job)
    return job, made


def _is_of(ensemble: Ensemble, chosen: Selection) -> bool:
    return {one.trial: one.share for one in ensemble.members} == dict(chosen.shares)


def _job(chosen: Selection, places: Mapping[RunFolder, Winner]) -> Job:
    """Return the job of a new ensemble of the final models in `places`."""
    members = tuple(
        EnsembleMember(
            trial=one.result.number,
            share=chosen.shares[one.result.number],
            final=folder.root.name,
            temperature=one.temperature,
        )
        for folder, one in places.items()
    )
    changes = {
        "kind": "final",
        "folder": final.new_place(chosen.best.study, NAME).root,
        "cache": paths.cache(),
        "resumed": False,
        "params": {},
        "ensemble": Ensemble(
            members=members,
            temperature=dict(chosen.temperature),
            val=chosen.val,
            most=chosen.most,
            started=time.time(),
        ),
    }
    return chosen.best.job.model_copy(update=changes)


# --------------------------------------------------------------------------------------- output
HEADERS = ("trial", "share", "backbone", "value")


def cells(chosen: Selection) -> list[list[str]]:
    return [
        [
            str(n),
            f"{chosen.shares[n]:.0%}",
            one.result.backbone,
            text.format_value(one.result.value, one.result.standard_error),
        ]
        for n, one in chosen.members.items()
    ]


def document(chosen: Selection) -> dict[str, Any]:
    """Return the selection as plain values for --json."""
    metric = chosen.best.result.metric
    members = [
        {"trial": n, "share": chosen.shares[n], "backbone": one.result.backbone, "value": one.result.value}
        for n, one in chosen.members.items()
    ]
    return {
        "schema_version": 1,
        "study": chosen.best.study.name,
        "metric": metric,
        "members": members,
        "value": chosen.value,
        "standard_error": chosen.val.standard_errors.get(metric),
        "best": {"trial": chosen.best.result.number, "value": chosen.own},
        "gain": list(chosen.gain) if chosen.gain else None,
    }
