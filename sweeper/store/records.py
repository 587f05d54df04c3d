"""The record: the files that the coordinator writes to run folders, and the code that reads them back."""

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from pydantic import Field, ValidationError

from sweeper.errors import EnvironmentFault
from sweeper.store import jsonfile, lock, trial_index
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.trial_index import Entry, digest
from sweeper.trial import Done, Failed, Job, Kind, Message, SearchState, State, TrialResult
from trainers.epoch import Epoch
from trainers.metrics.definitions import oriented
from trainers.support import files


def append(folder: RunFolder, epoch: Epoch) -> None:
    """Append `epoch` to the history as one synced line. Raises OSError on a full disk, with the history unchanged."""
    files.append(folder.history, epoch.model_dump_json().encode() + b"\n", sync=True)
    if epoch.number == 1:
        files.sync_folder(folder.root)


def history(folder: RunFolder) -> list[Epoch]:
    """Return the recorded epochs in order from 1, without a torn tail. Writes nothing, so any process may call it."""
    return _sound(folder.history)[0]


def repair(folder: RunFolder) -> list[Epoch]:
    """Do the same, and cut a torn tail off the file. Only for the holder of the study, while nothing trains here."""
    remove_leftovers(folder.root)
    epochs, length = _sound(folder.history)
    if folder.history.exists() and folder.history.stat().st_size > length:
        with folder.history.open("r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())
    return epochs


def remove_leftovers(folder: Path, *, ended: bool = False) -> None:
    """Remove unfinished files that kills have left of writes by `trainers.support.files`, in this folder and those of
    its folds.

    For a run that has `ended`, also remove files that waited for an epoch that will not come.
    """
    for rest in leftovers(folder, ended=ended):
        rest.unlink(missing_ok=True)


def leftovers(folder: Path, *, ended: bool = False) -> list[Path]:
    """Return the files that `remove_leftovers` would remove."""
    places = [folder, *(fold.root for fold in RunFolder(folder).folds)]
    waiting = (path for place in places for path in place.glob(f"{files.NEXT}*") if ended)
    mine = f".mlflow.json.{os.getpid()}.tmp"  # of the tracker, which may be writing it now
    unfinished = (path for place in places for path in place.glob(".*.tmp") if path.name != mine)
    return sorted([*unfinished, *waiting])


def _sound(path: Path) -> tuple[list[Epoch], int]:
    """Return the epochs of the leading lines that are complete and in order, and the bytes of those lines."""
    epochs: list[Epoch] = []
    length = 0
    for line in _lines(path):
        epoch = _parse(line)
        if epoch is None or epoch.number != len(epochs) + 1:
            break
        epochs.append(epoch)
        length += len(line)
    return epochs, length


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _parse(line: bytes) -> Epoch | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return Epoch.model_validate_json(line)
    except ValidationError:
        return None


def write_config(folder: RunFolder, job: Job) -> None:
    """Write the whole job to config.json, so that nothing later depends on today's YAML or defaults."""
    files.write_text(folder.config, job.model_dump_json(indent=1) + "\n")


def read_config(folder: RunFolder) -> Job | None:
    """Return the job as it was started, or None if it has not been written yet."""
    return jsonfile.read(folder.config, Job)


def started_job(folder: RunFolder) -> Job:
    """Return the job of an unfinished trial. Raises EnvironmentFault if it is missing."""
    job = read_config(folder)
    if job is None:
        raise EnvironmentFault(
            "the configuration of an unfinished trial is missing",
            where=str(folder.config),
            help="put it back or remove the trial's folder, then run the same command again",
        )
    return job


def write_search(folder: RunFolder, state: SearchState | None) -> None:
    """Write the state of sampler and pruner to search.json, unless `state` is None."""
    if state:
        files.write_text(folder.search, state.model_dump_json() + "\n")


def search_states(study: StudyFolder, trials: int) -> dict[int, SearchState]:
    """Return the states written by the first `trials` trials, by number."""
    found = ((number, jsonfile.read(study.trial(number).search, SearchState)) for number in range(trials))
    return {number: state for number, state in found if state}


def write_result(folder: RunFolder, result: TrialResult) -> None:
    """Write the result of a run to result.json, and that of a trial to its study's index as well."""
    files.write_text(folder.result, result.model_dump_json(indent=1) + "\n")
    if folder == folder.study.trial(result.number) and (found := entry(folder)):
        trial_index.add(folder.study, found)


def read_result(folder: RunFolder) -> TrialResult | None:
    """Return the result of the run, or None until it has finished."""
    return jsonfile.read(folder.result, TrialResult)


def result_of(
    job: Job,
    epochs: Iterable[Epoch],
    state: State,
    message: Done | Failed | None = None,
) -> TrialResult:
    """Return how `job` stands after `epochs`. Its value is the metric after the last epoch, or after the one that the
    recipe's selection chooses, the earliest of equal ones. `message` is its worker's last.
    """
    failed = message if isinstance(message, Failed) else None
    done = message if isinstance(message, Done) else None
    known = list(epochs)
    metric = job.recipe.metric
    counts = max(known, key=job.recipe.rank, default=None)
    return TrialResult(
        number=job.trial,
        state=state,
        metric=metric,
        minimize=job.recipe.minimize,
        value=_value(job, counts) if counts else None,
        epoch=counts.number if counts else None,
        epochs=len(known),
        planned=job.planned,
        backbone=job.recipe.train.backbone,
        params=job.params,
        seconds=sum(epoch.seconds for epoch in known),
        failure=failed.failure if failed else None,
        error=failed.text if failed else None,
        gpu_memory_gib=failed.gpu_memory_gib if failed else None,
        repeat_of=job.repeat_of,
        tta=done.tta if done else None,
        standard_errors=done.standard_errors if done else {},
        ended=time.time() if job.kind == "final" and state == "COMPLETE" else None,
    )


def _value(job: Job, epoch: Epoch) -> float | None:
    """Return the metric after an epoch; for a retraining, which has no val, the metric on train if there is one."""
    return epoch.known(job.recipe.metric) if job.kind == "final" else epoch.value(job.recipe.metric)


def refuse_gone(runs: Iterable[Path]) -> None:
    """Raise EnvironmentFault if the folder of any of these runs is gone."""
    if taken := next((folder for folder in runs if not folder.exists()), None):
        raise gone(taken)


def gone(folder: Path) -> EnvironmentFault:
    return EnvironmentFault(
        "the study's folder is gone: it, or part of it, was moved or deleted during this sweep",
        where=str(folder),
        help="put it back and run the same command again; without it the study starts from scratch",
    )


def folders(study: StudyFolder) -> list[tuple[int, RunFolder]]:
    """Return the number and folder of every trial, by number."""
    numbers = sorted(int(path.name) for path in study.trials.glob("[0-9]*") if path.name.isdigit())
    return [(number, study.trial(number)) for number in numbers]


def retrainings(study: StudyFolder) -> list[RunFolder]:
    """Return the folders of the runs outside the search: confirmations and retrainings."""
    places = (path for place in (study.confirmations, study.finals) for path in sorted(place.glob("*")))
    return [RunFolder(path) for path in places if path.is_dir()]


def runs(study: StudyFolder) -> list[RunFolder]:
    """Return the folders of all runs."""
    return [*(folder for _, folder in folders(study)), *retrainings(study)]


def results(study: StudyFolder) -> list[TrialResult]:
    """Return the results of all started trials by number; an unfinished one is RUNNING if a sweep holds the study,
    unless it is paused.
    """
    unfinished: State = "RUNNING" if lock.holder(study.lock) else "INTERRUPTED"
    known = trial_index.read(study)
    found = (
        known[number].result if number in known else _result(folder, unfinished) for number, folder in folders(study)
    )
    return [result for result in found if result]


def _result(folder: RunFolder, unfinished: State) -> TrialResult | None:
    if result := read_result(folder):
        return result
    job = read_config(folder)
    return result_of(job, history(folder), "PAUSED" if folder.paused.exists() else unfinished) if job else None


def seconds(study: StudyFolder) -> float:
    """Return the wall-clock seconds during which at least one trial was in an epoch, over all sessions."""
    return sum(end - start for start, end in _joined(_all_spans(study)))


def began(study: StudyFolder) -> float | None:
    """Return the start of a study's first epoch in Unix time; None before that."""
    return min((start for start, _ in _all_spans(study)), default=None)


def _all_spans(study: StudyFolder) -> Iterator[tuple[float, float]]:
    known = trial_index.read(study)
    for number, folder in folders(study):
        yield from known[number].spans if number in known else _spans(history(folder))


def _spans(epochs: Iterable[Epoch]) -> tuple[tuple[float, float], ...]:
    """Return the spans from start to end of epochs, with touching ones merged."""
    return tuple(_joined((epoch.time - epoch.seconds, epoch.time) for epoch in epochs))


def _joined(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def ended(study: StudyFolder) -> dict[int, Entry]:
    """Return every finished trial by number, in order, and repair the index. Only for the holder of the study."""
    known = trial_index.read(study)
    missing = [folder for number, folder in folders(study) if number not in known and folder.result.exists()]
    found = known | {one.result.number: one for folder in missing if (one := entry(folder))}
    lines = study.trial_index.read_bytes().count(b"\n") if study.trial_index.exists() else 0
    if found != known or lines != len(found):
        trial_index.rewrite(study, found.values())
    return dict(sorted(found.items()))


def entry(folder: RunFolder) -> Entry | None:
    """Return the index entry of a trial, made from its folder; None until it has finished."""
    if (stamp := trial_index.stamp(folder)) is None:
        return None
    result, job = read_result(folder), read_config(folder)
    if result is None or job is None:
        return None
    epochs = history(folder)
    return Entry(
        size=stamp[0],
        changed=stamp[1],
        result=result,
        configuration=digest(job.recipe),
        seed=job.recipe.train.seed,
        image_size=str(job.recipe.train.image_size),
        values=tuple(epoch.value(job.recipe.metric) for epoch in epochs),
        spans=_spans(epochs),
    )


# ------------------------------------------------------------------------------------------ figures
class Drawn(Message):
    """figures/.drawn.json: the figures of a run or a study, and the record they show. File times do not count."""

    source: str = Field(description="a checksum of the record that they show")
    figures: tuple[str, ...] = ()


def drawn_from(folder: RunFolder | StudyFolder, source: str) -> tuple[str, ...] | None:
    """Return the figures in `folder` that were drawn from `source`; None if nothing has tried to draw them."""
    try:
        found = Drawn.model_validate_json(folder.drawn.read_bytes())
    except (FileNotFoundError, ValidationError):  # derived: without it they are drawn again
        return None
    if found.source != source:
        return None
    return tuple(name for name in found.figures if (folder.figures / name).exists())


def write_drawn(folder: RunFolder | StudyFolder, source: str, figures: tuple[str, ...]) -> None:
    """Record which figures of `source` exist."""
    files.write_text(folder.drawn, Drawn(source=source, figures=figures).model_dump_json(indent=1) + "\n")


def checksum(folder: RunFolder) -> str:
    """Return the checksum of a run's result.json, or an empty string while there is none."""
    return files.sha256(folder.result)[:16] if folder.result.exists() else ""


def drawn(folder: RunFolder) -> tuple[str, ...] | None:
    """Return the figures that show the result of a run; None if nothing has tried to draw them."""
    return drawn_from(folder, checksum(folder)) if folder.drawn.exists() else None


def predictions_drawn(folder: RunFolder) -> bool:
    """True if a run's predictions are no longer needed, because all their figures exist."""
    return folder.last_figure.name in (drawn(folder) or ())


def drawable(folder: RunFolder, result: TrialResult, kind: Kind) -> bool:
    """True if a run has completed and left predictions to compare with labels, or the figures of them."""
    if result.state != "COMPLETE" or kind == "confirm":
        return False
    return (folder.test_scores if kind == "final" else folder.val_logits).exists() or predictions_drawn(folder)


def awaits_figures(folder: RunFolder, result: TrialResult, kind: Kind) -> bool:
    """True if a run can be drawn and nothing has tried to."""
    return drawable(folder, result, kind) and drawn(folder) is None


BUDGET_TOLERANCE = 0.1  # a running trial may exceed the budget by this share


def elapsed_seconds(folder: StudyFolder) -> float:
    """Return the seconds of sweeping in earlier sessions; without a valid record, those in which a trial trained."""
    noted = _noted(folder)
    return seconds(folder) if noted is None else noted


def overheads(folder: StudyFolder) -> list[float]:
    """Return the seconds that the latest trials of earlier sessions took besides their epochs."""
    return _numbers(folder)[1:]


def final_seconds(folder: RunFolder) -> float:
    """Return the seconds of a retraining over all sessions; without a valid record, those of its epochs."""
    noted = _noted(folder)
    return sum(end - start for start, end in _spans(history(folder))) if noted is None else noted


def retraining_seconds(place: Path) -> float:
    """Return the seconds of all runs in `place`, which holds the retrainings or the confirmations of a study."""
    return sum(final_seconds(RunFolder(path)) for path in place.glob("*") if path.is_dir())


def add_final_seconds(folder: RunFolder, seconds: float) -> None:
    """Add `seconds` to the recorded time of a retraining; on a full disk only this addition is lost."""
    try:
        if folder.root.exists():
            files.write_text(folder.elapsed, f"{(_noted(folder) or 0.0) + seconds:.3f}\n")
    except OSError as error:
        if not files.full(error):
            raise


def _noted(folder: StudyFolder | RunFolder) -> float | None:
    return next(iter(_numbers(folder)), None)


def _numbers(folder: StudyFolder | RunFolder) -> list[float]:
    """Return the recorded seconds, then those of trials besides their epochs; nothing without a valid record."""
    try:
        found = [float(word) for word in folder.elapsed.read_bytes().split()]
    except (FileNotFoundError, ValueError):
        return []
    return found if all(0 <= one < math.inf for one in found) else []


def best(results: Iterable[TrialResult]) -> TrialResult | None:
    """Return the completed trial with the best value, the earliest of equal ones; None if there is none."""
    done = [r for r in results if r.state == "COMPLETE" and r.value is not None]
    return max(done, key=lambda r: (r.oriented, -r.number), default=None)


def confirmed(study: StudyFolder, metric: str | None = None) -> dict[int, tuple[float, ...]]:
    """Return the recorded values with new seeds, by trial; with `metric`, only if they are of this one."""
    values: dict[int, tuple[float, ...]] = {}
    for path in sorted(study.confirmations.glob("*/result.json")):
        result = read_result(RunFolder(path.parent))
        if result and result.value is not None and metric in (None, result.metric):
            values[result.number] = (*values.get(result.number, ()), result.value)
    return values


def winner(results: Sequence[TrialResult], confirmed: Mapping[int, Sequence[float]]) -> TrialResult | None:
    """Return the completed trial with the best value, or the confirmed one with the best mean over new seeds.

    Confirmations count as long as no unconfirmed trial has overtaken the confirmed ones.
    """
    top = best(results)
    if top is None or top.number not in confirmed:
        return top
    again = [(mean(confirmed[result.number]), result) for result in results if result.number in confirmed]
    return max(again, key=lambda one: (oriented(one[0], minimize=top.minimize), -one[1].number))[1]
