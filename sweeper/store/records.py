"""The record: what the coordinator writes into run folders, and how it is read back."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from sweeper.errors import EnvironmentFault
from sweeper.store import jsonfile, lock, trial_index
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.trial_index import Entry, digest
from sweeper.trial import Done, Failed, Job, Kind, Message, SearchState, State, TrialResult
from trainers.epoch import Epoch
from trainers.support import files


def append(folder: RunFolder, epoch: Epoch) -> None:
    """Add `epoch` to the history as one synced line; on a full disk the history stays as it was (OSError)."""
    files.append(folder.history, epoch.model_dump_json().encode() + b"\n", sync=True)
    if epoch.number == 1:
        files.sync_folder(folder.root)


def history(folder: RunFolder) -> list[Epoch]:
    """The epochs on record, in order from 1; a torn tail is left out. Writes nothing, so anyone may ask."""
    return _sound(folder.history)[0]


def repair(folder: RunFolder) -> list[Epoch]:
    """The same, and the torn tail is cut off the file. Only for whoever holds the study, while nobody trains here."""
    remove_leftovers(folder.root)
    epochs, length = _sound(folder.history)
    if folder.history.exists() and folder.history.stat().st_size > length:
        with folder.history.open("r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())
    return epochs


def remove_leftovers(folder: Path, *, ended: bool = False) -> None:
    """Remove what kills left of files that were being written, by `trainers.support.files`, in this very folder and
    those of its folds.

    Of a run that has `ended` also what waited for an epoch that will not come.
    """
    for rest in leftovers(folder, ended=ended):
        rest.unlink(missing_ok=True)


def leftovers(folder: Path, *, ended: bool = False) -> list[Path]:
    """What `remove_leftovers` would remove."""
    places = [folder, *(fold.root for fold in RunFolder(folder).folds)]
    waiting = (path for place in places for path in place.glob(f"{files.NEXT}*") if ended)
    mine = f".mlflow.json.{os.getpid()}.tmp"  # of the tracker, which may be at it now
    unfinished = (path for place in places for path in place.glob(".*.tmp") if path.name != mine)
    return sorted([*unfinished, *waiting])


def _sound(path: Path) -> tuple[list[Epoch], int]:
    """The epochs of the leading lines that are whole and in order, and the bytes they take."""
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
    """Put the whole job into config.json, so that nothing later depends on today's YAML or defaults."""
    files.write_text(folder.config, job.model_dump_json(indent=1) + "\n")


def read_config(folder: RunFolder) -> Job | None:
    """The job as it was started, or None when it was not written yet."""
    return jsonfile.read(folder.config, Job)


def started_job(folder: RunFolder) -> Job:
    """The job of a trial that has begun and not ended. Raises EnvironmentFault where it is gone."""
    job = read_config(folder)
    if job is None:
        raise EnvironmentFault(
            "the configuration of a trial that has no end is gone",
            where=str(folder.config),
            help="put it back, or remove the trial's folder, and run the same command again",
        )
    return job


def write_search(folder: RunFolder, state: SearchState | None) -> None:
    """Put what sampler and pruner have kept into search.json, if that is something new."""
    if state:
        files.write_text(folder.search, state.model_dump_json() + "\n")


def search_states(study: StudyFolder, trials: int) -> dict[int, SearchState]:
    """The same of the first so many trials, by number, where there is any."""
    found = ((number, jsonfile.read(study.trial(number).search, SearchState)) for number in range(trials))
    return {number: state for number, state in found if state}


def write_result(folder: RunFolder, result: TrialResult) -> None:
    """Put the end of a run into result.json, and that of a trial into its study's index as well."""
    files.write_text(folder.result, result.model_dump_json(indent=1) + "\n")
    if folder == folder.study.trial(result.number) and (found := entry(folder)):
        trial_index.add(folder.study, found)


def read_result(folder: RunFolder) -> TrialResult | None:
    """How the run ended, or None while it has not."""
    return jsonfile.read(folder.result, TrialResult)


def result_of(
    job: Job,
    epochs: Iterable[Epoch],
    state: State,
    message: Done | Failed | None = None,
) -> TrialResult:
    """How `job` stands after `epochs`: its value is the metric's after the last, or after the one that its recipe's
    selection chooses, the earliest of equals. `message` is its worker's last.
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
    )


def _value(job: Job, epoch: Epoch) -> float | None:
    """The metric after an epoch; of a final, which has no val, as far as train has it."""
    return epoch.known(job.recipe.metric) if job.kind == "final" else epoch.value(job.recipe.metric)


def refuse_gone(runs: Iterable[Path]) -> None:
    """Raise EnvironmentFault where the folder of a run under way was taken away."""
    if taken := next((folder for folder in runs if not folder.exists()), None):
        raise gone(taken)


def gone(folder: Path) -> EnvironmentFault:
    return EnvironmentFault(
        "the study's folder is gone: somebody has moved or deleted it, or a part of it, under this sweep",
        where=str(folder),
        help="put it back and run the same command again; without it the study starts from scratch",
    )


def folders(study: StudyFolder) -> list[tuple[int, RunFolder]]:
    """Every trial's number and folder, by number."""
    numbers = sorted(int(path.name) for path in study.trials.glob("[0-9]*") if path.name.isdigit())
    return [(number, study.trial(number)) for number in numbers]


def retrainings(study: StudyFolder) -> list[RunFolder]:
    """The folders of the runs that no search decides on: confirmations and finals."""
    places = (path for place in (study.confirmations, study.finals) for path in sorted(place.glob("*")))
    return [RunFolder(path) for path in places if path.is_dir()]


def runs(study: StudyFolder) -> list[RunFolder]:
    """The folders of all that was trained."""
    return [*(folder for _, folder in folders(study)), *retrainings(study)]


def results(study: StudyFolder) -> list[TrialResult]:
    """Every trial that was begun, by number; one without an end is RUNNING if a sweep holds the study."""
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
    """Wall-clock time during which at least one trial was in an epoch, over all calls."""
    return sum(end - start for start, end in _joined(_all_spans(study)))


def began(study: StudyFolder) -> float | None:
    """When the first epoch of a study began (Unix time); None before that."""
    return min((start for start, _ in _all_spans(study)), default=None)


def _all_spans(study: StudyFolder) -> Iterator[tuple[float, float]]:
    known = trial_index.read(study)
    for number, folder in folders(study):
        yield from known[number].spans if number in known else _spans(history(folder))


def _spans(epochs: Iterable[Epoch]) -> tuple[tuple[float, float], ...]:
    """The times from begin to end of epochs, those that touch as one."""
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
    """Every trial that has ended, by number in their order; mends the index. Only for whoever holds the study."""
    known = trial_index.read(study)
    missing = [folder for number, folder in folders(study) if number not in known and folder.result.exists()]
    found = known | {one.result.number: one for folder in missing if (one := entry(folder))}
    lines = study.trial_index.read_bytes().count(b"\n") if study.trial_index.exists() else 0
    if found != known or lines != len(found):
        trial_index.rewrite(study, found.values())
    return dict(sorted(found.items()))


def entry(folder: RunFolder) -> Entry | None:
    """What the index has of a trial, as its folder says it; None before its end."""
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
    """figures/.drawn.json: the figures of a run or a study, and what they show. No time of a file counts."""

    source: str = Field(description="a checksum of the record that they show")
    figures: tuple[str, ...] = ()


def drawn_from(folder: RunFolder | StudyFolder, source: str) -> tuple[str, ...] | None:
    """The figures in `folder` that were drawn from `source`; None where nobody has tried to."""
    try:
        found = Drawn.model_validate_json(folder.drawn.read_bytes())
    except (FileNotFoundError, ValidationError):  # derived: without it they are drawn anew
        return None
    if found.source != source:
        return None
    return tuple(name for name in found.figures if (folder.figures / name).exists())


def write_drawn(folder: RunFolder | StudyFolder, source: str, figures: tuple[str, ...]) -> None:
    """Record which figures of `source` there are."""
    files.write_text(folder.drawn, Drawn(source=source, figures=figures).model_dump_json(indent=1) + "\n")


def checksum(folder: RunFolder) -> str:
    """Of a run's result.json, or nothing while there is none."""
    return files.sha256(folder.result)[:16] if folder.result.exists() else ""


def drawn(folder: RunFolder) -> tuple[str, ...] | None:
    """The figures that show how a run has ended; None where nobody has tried to draw them."""
    return drawn_from(folder, checksum(folder)) if folder.drawn.exists() else None


def predictions_drawn(folder: RunFolder) -> bool:
    """Whether a run's predictions are needed no more: all figures of them are there."""
    return folder.last_figure.name in (drawn(folder) or ())


def drawable(folder: RunFolder, result: TrialResult, kind: Kind) -> bool:
    """Whether a run has ended well and left predictions that can be compared with labels, or figures of them."""
    if result.state != "COMPLETE" or kind == "confirm":
        return False
    return (folder.test_scores if kind == "final" else folder.val_logits).exists() or predictions_drawn(folder)


def awaits_figures(folder: RunFolder, result: TrialResult, kind: Kind) -> bool:
    """Whether a run can be drawn and nobody has tried to."""
    return drawable(folder, result, kind) and drawn(folder) is None


BUDGET_TOLERANCE = 0.1  # a running trial may end this share of the budget late


def elapsed_seconds(folder: StudyFolder) -> float:
    """Seconds of sweeping in earlier calls; where none are kept, or no number, those in which a trial was trained."""
    noted = _noted(folder)
    return seconds(folder) if noted is None else noted


def final_seconds(folder: RunFolder) -> float:
    """Seconds that a retraining took, over all calls; where none are kept, or no number, those of its epochs."""
    noted = _noted(folder)
    return sum(end - start for start, end in _spans(history(folder))) if noted is None else noted


def add_final_seconds(folder: RunFolder, seconds: float) -> None:
    """Keep how long a retraining took, beside what earlier calls took; a full disk costs this alone."""
    try:
        if folder.root.exists():
            files.write_text(folder.elapsed, f"{(_noted(folder) or 0.0) + seconds:.3f}\n")
    except OSError as error:
        if not files.full(error):
            raise


def _noted(folder: StudyFolder | RunFolder) -> float | None:
    try:
        noted = float(folder.elapsed.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return noted if 0 <= noted < math.inf else None


def best(results: Iterable[TrialResult]) -> TrialResult | None:
    """The completed trial with the best value, the earliest of equals."""
    done = [r for r in results if r.state == "COMPLETE" and r.value is not None]
    return max(done, key=lambda r: (r.oriented, -r.number), default=None)
