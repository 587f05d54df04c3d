"""The final model: the winner of a study, retrained on train and val, and packed for submission."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper import text
from sweeper.engine import prepare, retraining
from sweeper.results import card, submission
from sweeper.results.submission import Submission
from sweeper.results.winner import Winner
from sweeper.store import jsonfile, paths, records, studies, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.terminal import output
from sweeper.tracking import catching_up
from sweeper.trial import Done, Job, TrialResult
from trainers import extensions
from trainers.data import images
from trainers.data.summary import Summary
from trainers.data_config import DataConfig
from trainers.epoch import Epoch, Scores
from trainers.support.checksummed import weights_ok
from trainers.support.files import sha256, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sweeper.system.devices import Slot
    from trainers.data.layouts import Table

MIN_ANSWERS = 100  # same as in trainers.evaluation.temperature, which is not imported here


@dataclass(frozen=True)
class Final:
    """A finished retraining: its folder, the model's sha256, and the submission if there are test images."""

    folder: RunFolder
    sha256: str
    submission: Submission | None
    known: bool  # it was finished before
    metric: str
    test: Scores | None  # if test has labels


def finished(final: Final) -> dict[str, Any]:
    """Return a final model as plain values for --json."""
    made = final.submission
    return {
        "schema_version": 1,
        "folder": str(final.folder.root),
        "known": final.known,
        "model": {"path": str(final.folder.model), "sha256": final.sha256},
        "submission": _document(made) if made else None,
        "test": final.test.model_dump(mode="json") if final.test else None,
    }


def _document(made: Submission) -> dict[str, Any]:
    classes = {category.name: list(category.classes) for category in made.classes}
    return {
        "path": str(made.path) if made.path else None,
        "sha256": made.sha256,
        "images": made.images,
        "classes": classes,
        "by_name": str(made.table) if made.table else None,
        "refused": made.refused or None,
    }


def ending(final: Final, study: StudyFolder) -> "Iterator[str]":
    """Yield the location of each file, and the next commands."""
    how = "made before (--again makes a new one)" if final.known else "done"
    yield f"{how}: {text.relative_path(final.folder.root)}"
    yield f"model:      {final.folder.model.name}, sha256 {final.sha256}"
    if made := final.submission:
        if made.path:
            yield f"submission: {text.relative_path(made.path)}, {made.images} images, sha256 {made.sha256}"
        else:
            yield f"submission: none, {made.refused}"
        for same in studies.same_submissions(final.folder):
            yield f"            identical to that of {same.name}: a board would give it the same score"
        if made.table:
            counted = "" if made.path else f", {made.images} images"
            yield f"by name:    {text.relative_path(made.table)}{counted}"
        for category, number in made.renumbered():
            name = category.classes[number]
            what = f"{number} of {category.name} is {name!r}"
            yield f"            {submission.MEMBER} numbers classes from 0: {what} (see the card)"
        if made.formulas:
            yield "            (a spreadsheet would read some names as formulas: import them as text)"
    else:
        yield "submission: none, as the data set has no test images"
    if final.test:
        value = text.format_value(final.test.metrics.get(final.metric), final.test.standard_errors.get(final.metric))
        yield f"test:       {final.metric} {value}{_labelled(final.test, made)}"
    yield from submission.fold_lines(final.folder)
    yield f"card:       {text.relative_path(final.folder.card)}"
    is_newest = studies.newest_final(study) in (None, final.folder)
    yield f"predict:    sweep predict {study.name if is_newest else text.relative_path(final.folder.root)} IMAGES"
    yield f"browse:     sweep ui {study.name}"


def _labelled(test: Scores, made: Submission | None) -> str:
    """Return the number of images behind a test score, or of known answers if some are missing."""
    if known := sum(test.category_answers.values()):
        return f", {text.counted(known, 'known answer')}"
    return f", {made.images} images" if made else ""


# --------------------------------------------------------------------------------------- final model
def export(
    won: Winner, slots: "Sequence[Slot]", *, again: bool = False, mlflow: bool = True, events: bool = False
) -> Final:
    """Retrain the winner on train and val, predict test, and pack the predictions.

    The recipe is unchanged, including the length of its schedule; if selection chose an epoch of the winner,
    training stops after that many. An interrupted final model of the same trial is resumed, and a finished one is
    packed again from its predictions, unless `again`. On a full disk, this waits for space and then continues.
    `events`: report progress as JSON.
    """
    folder, done = place(won, again=again)
    data = won.job.recipe.data
    if done:
        extensions.use(extensions.stored(folder.extensions, won.job.recipe.extensions))
        table = prepare.checked(data, won.study).table
        if study_file.predicts(folder, images.fingerprint(table), images.fingerprint_of(table, "test")):
            final = packed(folder, table, data, won.result.metric, known=True)
            if mlflow:
                catching_up.catch_up([won.study], output.print_message)
            return final
    work = _predicted if done else _trained
    final = retraining.session(
        won.study,
        won.job.recipe,
        slots,
        lambda session: work(won, folder, session),
        spent_on=[folder],
        mlflow=mlflow,
        events=events,
    )
    folder.checkpoint.unlink(missing_ok=True)  # its content is in model.safetensors
    return final


def _trained(won: Winner, folder: RunFolder, session: retraining.RetrainingSession) -> Final:
    """Train the rest of the final model, if any is left after a full disk, and pack it."""
    train({folder: won}, session)
    job = job_of(won, folder)
    return packed(folder, session.table, job.recipe.data, won.result.metric, known=False)


def train(places: "Mapping[RunFolder, Winner]", session: retraining.RetrainingSession) -> None:
    """Train the unfinished final models of several trials, side by side as slots allow, and record them."""
    waiting = {folder: won for folder, won in places.items() if records.read_result(folder) is None}
    jobs = {folder.root: job_of(won, folder) for folder, won in waiting.items()}
    for folder, won in waiting.items():
        what = f"retraining trial {won.result.number}" if won.epoch else "training the first configuration"
        seed = "" if won.seed is None else f" with seed {won.seed}"
        session.observers.note(f"{what}{seed} on train and val for {jobs[folder.root].length}")
        if not jobs[folder.root].temperature and len(waiting) == 1:
            why = uncalibrated(won) if won.epoch else "probabilities are not calibrated: nothing was scored on val"
            session.observers.note(why)

    def make_result(job: Job, ended: Done, epochs: list[Epoch]) -> TrialResult:
        return record(waiting[RunFolder(job.folder)], job, ended.scores, epochs, session.table)

    if jobs:
        session.train(list(jobs.values()), make_result)


def uncalibrated(won: Winner) -> str:
    """Return a note that the winner has no temperature, the possible reasons, and the remedy."""
    which = f"{won.study.name} --trial {won.result.number}" if won.picked else won.study.name
    return (
        f"probabilities are not calibrated, because trial {won.result.number} has no temperature: either no category"
        f" has {MIN_ANSWERS} known answers in val, or an earlier version trained it; in the latter case, train it"
        f" again with: sweep best {which} > best.yaml && sweep run best.yaml --then-best"
    )


def _predicted(won: Winner, folder: RunFolder, session: retraining.RetrainingSession) -> Final:
    """Predict test again with a finished final model, as the test images have changed, and pack it."""
    job = job_of(won, folder)
    predict_again(won, job, session)
    return packed(folder, session.table, job.recipe.data, won.result.metric, known=True)


def predict_again(won: Winner, job: Job, session: retraining.RetrainingSession) -> None:
    """Predict the test images, which have changed, with a finished final model."""
    folder = RunFolder(job.folder)
    study_file.note_test(folder, study_file.PENDING)
    for path in (
        *folder.of_folds,
        folder.test_logits,
        folder.test_scores,
        folder.prediction,
        folder.predictions,
        folder.submission,
    ):
        path.unlink(missing_ok=True)  # there may be no test images left
    session.observers.note(f"the test images have changed: {folder.root.name} predicts them without retraining")
    only = job.model_copy(update={"only_predict": True})
    session.train([only], lambda job, ended, epochs: record(won, job, ended.scores, epochs, session.table))


def place(won: Winner, *, again: bool) -> tuple[RunFolder, bool]:
    """Return the folder of the final model, and True if it is finished; a damaged one is left, and replaced."""
    found = _latest(won)
    if found and not found.done:
        return found.folder, False
    if found and not again:
        if weights_ok(found.folder.model):
            return found.folder, True
        where = text.relative_path(found.folder.model)
        output.print_message(f"{where} is missing or damaged, so this model is trained again")
    seed = "" if won.seed is None else f"-seed{won.seed}"
    return new_place(won.study, f"{won.result.number:04d}{seed}"), False


def current(won: Winner) -> str | None:
    """Return the name of the folder that `place` returns, if it exists already."""
    found = _latest(won)
    return found.folder.root.name if found and (not found.done or weights_ok(found.folder.model)) else None


def _latest(won: Winner) -> studies.FinalRun | None:
    """Return the last final model of a trial and seed, an unfinished one first.

    One that was made before the trial ran does not count: nothing was fitted on val.
    """
    wanted = won.result.number, won.seed, won.epoch is None
    found = [one for one in studies.finals(won.study) if not one.members]
    mine = [one for one in found if (one.trial, one.seed, one.untried) == wanted]
    return max(mine, key=lambda one: (not one.done, one.number), default=None)


def new_place(study: StudyFolder, what: str) -> RunFolder:
    """Return a folder for a new final model, named after the date and `what` it is made of."""
    name = f"{time.strftime('%Y-%m-%d')}-{what}"
    taken = {final.folder.root.name for final in studies.finals(study)}
    names = [name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))]
    return study.final(next(one for one in names if one not in taken))


def job_of(won: Winner, folder: RunFolder) -> Job:
    """Return the retraining job of a trial in the folder of a final model."""
    known = records.read_config(folder)
    if known:
        return known.model_copy(update={"folder": folder.root, "cache": paths.cache()})
    recipe = won.job.recipe
    changes = {
        "kind": "final",
        "recipe": recipe if won.seed is None else recipe.with_seed(won.seed),
        "seed": won.seed,
        "folder": folder.root,
        "cache": paths.cache(),
        "resumed": False,
        "stop_after": won.length,
        "tau": won.tau,
        "thresholds": won.thresholds,
        "temperature": won.temperature,
        "use_tta": won.views,
        "metric_history": won.metric_history,
    }
    return won.job.model_copy(update=changes)


def record(won: Winner, job: Job, scores: Scores | None, epochs: list[Epoch], table: "Table") -> TrialResult:
    """Write the files beside the model, before its outcome is recorded, and return the result."""
    folder = RunFolder(job.folder)
    if scores:
        write_text(folder.test_scores, scores.model_dump_json(indent=1) + "\n")
    made = _submission(folder, table, job.recipe.data)
    if not job.ensemble:
        submission.export_folds(won, folder, table)
    data = jsonfile.read(won.study.data, Summary)
    notes = data.notes if data else ()
    facts = card.CardData(
        won.study.name, won.result, won.epoch, won.confirmed, job, table, scores, notes, picked=won.picked
    )
    write_text(folder.card, card.card(facts, sha256(folder.model), made.sha256 if made else None))
    study_file.note_test(folder, images.fingerprint_of(table, "test"))
    value = scores.metrics.get(job.recipe.metric) if scores else None
    errors = scores.standard_errors if scores else {}
    ended = records.result_of(job, epochs, "COMPLETE")
    last = epochs[-1].number if epochs else None
    changes: dict[str, Any] = {"value": value, "epoch": last, "standard_errors": errors}
    if job.only_predict and (before := records.read_result(folder)):
        changes["ended"] = before.ended  # it is no newer model than it was
    return ended.model_copy(update=changes)


def packed(folder: RunFolder, table: "Table", data: DataConfig, metric: str, *, known: bool) -> Final:
    test = jsonfile.read(folder.test_scores, Scores)
    return Final(folder, sha256(folder.model), _submission(folder, table, data), known, metric, test)


def _submission(folder: RunFolder, table: "Table", data: DataConfig) -> Submission | None:
    if not folder.test_logits.exists():
        return None
    return submission.export(folder, table, data)
