"""Ensembles: the selected models are retrained and put into one file."""

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sweeper.engine import prepare, retraining
from sweeper.results.winner import Winner
from sweeper.store import paths, records, studies, study_file
from sweeper.store.paths import RunFolder
from sweeper.terminal.output import print_message
from sweeper.tracking import catching_up
from sweeper.trial import Done, Ensemble, EnsembleMember, Job, TrialResult
from sweeper.winners import final
from sweeper.winners.final import Final
from sweeper.winners.selection import Selection
from trainers.data import images
from trainers.epoch import Epoch
from trainers.support.checksummed import weights_ok

if TYPE_CHECKING:
    from sweeper.system.devices import Slot

NAME = "ensemble"


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
    found = _on_record(chosen, again=again)
    if found and _is_made(folder := RunFolder(found[0].folder)) and not _waiting(found[1]):
        table = prepare.checked(recipe.data, study).table
        if study_file.predicts(folder, images.fingerprint(table), images.fingerprint_of(table, "test")):
            if mlflow:
                catching_up.catch_up([study], print_message)
            return final.packed(folder, table, recipe.data, recipe.metric, known=True)
    spent: list[RunFolder] = []

    def work(session: retraining.RetrainingSession) -> Final:
        job, places = _on_record(chosen, again=again) or _started(chosen, again=again)
        spent[:] = _waiting(places) or [RunFolder(job.folder)]
        return _trained(chosen, places, job, session)

    return retraining.session(study, recipe, slots, work, spent_on=spent, mlflow=mlflow, events=events)


def _waiting(places: Iterable[RunFolder]) -> list[RunFolder]:
    """Return the members that are not trained yet."""
    return [one for one in places if records.read_result(one) is None]


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

    known = _is_made(folder)
    test = images.fingerprint_of(session.table, "test")
    if not known:
        gained = f"; {chosen.line}" if chosen.joint else ""
        session.observers.note(f"{job.title}: {job.ensemble.name if job.ensemble else ''}{gained}")
        session.train([job], make_result)
    elif not study_file.predicts(folder, images.fingerprint(session.table), test):
        final.predict_again(chosen.best, job, session)
    return final.packed(folder, session.table, job.recipe.data, chosen.best.result.metric, known=known)


def _on_record(chosen: Selection, *, again: bool) -> tuple[Job, dict[RunFolder, Winner]] | None:
    """Return the ensemble on record, an unfinished one first, and the final models of its members; else None."""
    study = chosen.best.study
    known = [one for one in studies.finals(study) if one.members]
    present = [final.current(one) for one in chosen.members] if known else []
    for one in reversed(known):
        job = records.read_config(one.folder)
        if job and job.ensemble and _is_of(job.ensemble, chosen, present) and not (one.done and again):
            places = {study.final(m.final): one for m, one in zip(job.ensemble.members, chosen.members, strict=True)}
            return job.model_copy(update={"folder": one.folder.root, "cache": paths.cache()}), places
    return None


def _started(chosen: Selection, *, again: bool) -> tuple[Job, dict[RunFolder, Winner]]:
    """Record a new ensemble before its members are trained, so that the study shows what remains to be done.

    Unfinished ones, of other members, hold nothing yet and are removed. The caller holds the study.
    """
    for one in studies.finals(chosen.best.study):
        if one.members and not one.done:
            shutil.rmtree(one.folder.root)
    made = {final.place(one, again=again)[0]: one for one in chosen.members}
    job = _job(chosen, made)
    retraining.begin(job)
    return job, made


def _is_of(ensemble: Ensemble, chosen: Selection, present: Sequence[str | None]) -> bool:
    """True if it combines the `present` final models of these members, in these shares."""
    known = [(one.trial, one.seed, one.final, one.share) for one in ensemble.members]
    wanted = zip(chosen.members, present, chosen.shares, strict=True)
    return known == [(one.result.number, one.seed, name, share) for one, name, share in wanted]


def _is_made(folder: RunFolder) -> bool:
    """True if it is finished and its model is intact."""
    return records.read_result(folder) is not None and weights_ok(folder.model)


def _job(chosen: Selection, places: Mapping[RunFolder, Winner]) -> Job:
    """Return the job of a new ensemble of the final models in `places`."""
    members = tuple(
        EnsembleMember(
            trial=one.result.number,
            seed=one.seed,
            share=share,
            final=folder.root.name,
            temperature=one.temperature,
        )
        for (folder, one), share in zip(places.items(), chosen.shares, strict=True)
    )
    changes = {
        "kind": "final",
        "folder": final.new_place(chosen.best.study, NAME).root,
        "cache": paths.cache(),
        "resumed": False,
        "params": {},
        "ensemble": Ensemble(
            members=members,
            temperature=dict(chosen.joint.temperature) if chosen.joint else {},
            val=chosen.joint.val if chosen.joint else None,
            most=chosen.most,
            started=time.time(),
        ),
    }
    return chosen.best.job.model_copy(update=changes)
