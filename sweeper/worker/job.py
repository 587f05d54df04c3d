"""Runs a job in a worker. Training code is loaded inside a job, never by importing this module."""

import logging
import re
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sweeper.store.paths import RunFolder
from sweeper.trial import Done, EnsembleMember, Failed, Failure, Job, Progress
from sweeper.worker import fake_trainer
from trainers import extensions
from trainers.config import Recipe
from trainers.data_config import DataConfig, Framing
from trainers.epoch import Epoch, Look, Scores
from trainers.loading.batches import Data
from trainers.support import files
from trainers.support.checksummed import load_array, save_array
from trainers.support.errors import Diverged, Overflowed, UserError
from trainers.support.position import Cursor

if TYPE_CHECKING:
    import numpy as np

    from trainers.cross_validation import Folds
    from trainers.evaluation.model_file import Calibration


log = logging.getLogger(__name__)

Messages = Generator[Progress, bool | None, Done | Failed]


def run(
    job: Job, device: str, *, threads: int | None = None, alone: bool = False, cursor: Cursor | None = None
) -> Messages:
    """Run one job: yield Progress, expect True (continue) or False (stop), and return Done or Failed.

    threads: CPU threads, by default those of the process. alone: no other process trains on this device.
    cursor: kept at the last finished batch, and cleared at the end.

    Anything that training raises becomes the job's Failed; only a request to end the process propagates.
    """
    if job.micro_batch:
        log.warning("%s: batches pass in pieces of %d images to fit in memory", job.label, job.micro_batch)
    trainer: Trainer = fake_trainer if fake_trainer.Switches.read().on else Torch(threads, alone)
    cursor = cursor or Cursor()
    try:
        return (yield from _run(job, device, trainer, cursor))
    except Exception as error:  # noqa: BLE001  the boundary: one job's error must not reach the next
        if failure_of(error) != "oom" or _of_host(error):
            return failed(job, error)
        lack = {"gpu_memory_gib": trainer.memory(device), "resident": trainer.resident(job)}
        return failed(job, error).model_copy(update=lack)
    finally:
        cursor.at = None


def advance(messages: Messages, keep: bool | None) -> Progress | Done | Failed:
    """Return the next message after the answer `keep`, which is None before the first."""
    try:
        return messages.send(keep)
    except StopIteration as end:
        ended: Done | Failed = end.value
        return ended


def _run(job: Job, device: str, trainer: "Trainer", cursor: Cursor) -> Messages:
    extensions.use(extensions.stored(RunFolder(job.folder).extensions, job.recipe.extensions))
    if job.ensemble:
        trainer.combine(job)
    if job.ensemble or job.only_predict:
        return Done(key=job.key, scores=_finish(job, device, trainer))
    fit = ("train", "val") if job.kind == "final" else ("train",)
    last = job.planned
    with closing(trainer.train(job, fit, device, cursor)) as epochs:  # closing puts everything trained on disk
        for epoch in epochs:
            keep = yield Progress(key=job.key, epoch=epoch)
            if epoch.number >= last:
                break
            if not keep:
                return Done(key=job.key, stopped=True)
    if job.kind == "final":
        return Done(key=job.key, scores=_finish(job, device, trainer))
    return Done(key=job.key, tta=_look(job, device, trainer), standard_errors=_bootstrap(job, trainer))


def _bootstrap(job: Job, trainer: "Trainer") -> dict[str, float]:
    """Save the metrics in resamples of val to the folder; return their standard errors."""
    if (found := trainer.resample(job)) is None:
        return {}
    from trainers.evaluation.bootstrap import standard_errors

    save_array(RunFolder(job.folder).val_bootstrap, found)
    return standard_errors(found)


def _look(job: Job, device: str, trainer: "Trainer") -> Look | None:
    """Evaluate test-time augmentation on val; an error here is logged and does not fail a trained trial."""
    try:
        return trainer.look(job, RunFolder(job.folder).model, device)
    except Exception:
        log.exception("test-time augmentation on val failed; the trial counts without it")
        return None


def _finish(job: Job, device: str, trainer: "Trainer") -> Scores | None:
    """Save the model's predictions on test to the folder; return the scores if test has labels."""
    folder = RunFolder(job.folder)
    predicted = trainer.predict(job, folder.model, device)
    if predicted is None:
        return None
    logits, scores = predicted
    save_array(folder.test_logits, logits)
    models = [fold.model for fold in folder.study.trial(job.trial).folds if fold.model.exists()]
    if job.recipe.folds == len(models) and not job.ensemble:
        for number, found in enumerate(trainer.predict_folds(job, models, device), 1):
            save_array(folder.test_logits_of_fold(number), found)
    return scores


# ----------------------------------------------------------------------------------------- trainers
class Trainer(Protocol):
    """The work of a job; the module `sweeper.worker.fake_trainer` satisfies this protocol as well."""

    def train(self, job: Job, fit: Sequence[str], device: str, cursor: Cursor) -> Generator[Epoch]:
        """Yield the epochs of `job`, trained on the splits in `fit`; those in its checkpoint come first, at once.

        `cursor` is kept at the last finished batch. Everything is on disk once the last epoch has been yielded or the
        generator is closed.
        """
        ...

    def predict(self, job: Job, weights: Path, device: str) -> "tuple[np.ndarray, Scores | None] | None":
        """Return test logits [N, sum of classes], and scores if any image has labels; None without test images."""
        ...

    def combine(self, job: Job) -> None:
        """Combine the models of an ensemble into one file."""
        ...

    def look(self, job: Job, weights: Path, device: str) -> Look | None:
        """Evaluate val with the recipe's test-time augmentation; None without augmentation or val."""
        ...

    def resample(self, job: Job) -> "np.ndarray | None":
        """Return a trained trial's metrics in resamples of val, as `bootstrap.resample` does; None without val."""
        ...

    def predict_folds(self, job: Job, models: Sequence[Path], device: str) -> "list[np.ndarray]":
        """Return logits [N, sum of classes] of the test images for the model of each fold, one view, uncorrected."""
        ...

    def memory(self, device: str) -> float | None:
        """Return the total memory of a GPU in GiB; None for any other device."""
        ...

    def resident(self, job: Job) -> bool:
        """True if decoded images are on the GPU."""
        ...


@dataclass(frozen=True)
class Torch:
    """The real trainer, with its share of the machine."""

    threads: int | None
    alone: bool

    def train(self, job: Job, fit: Sequence[str], device: str, cursor: Cursor) -> Generator[Epoch]:
        from trainers import cross_validation
        from trainers.support.device import release, use_threads
        from trainers.train import train

        if self.threads:
            use_threads(self.threads)

        def one(recipe: Recipe, data: Data, folder: Path, recorded: Sequence[Epoch]) -> Generator[Epoch]:
            return train(
                recipe,
                data,
                folder,
                fit=tuple(fit),
                device=device,
                past=job.metric_history,
                resident=self.alone and job.resident and job.micro_batch is None,
                micro_batch=job.micro_batch,
                full_precision=job.full_precision,
                calibration=_calibration(job) if job.kind == "final" else None,
                cursor=cursor,
                raw=bool(job.folds),
                recorded=recorded,
            )

        folds = _folds(job)
        whole = cross_validation.train(job.recipe, folds, job.folder, one, job.recorded) if folds else None
        with closing(whole or one(job.recipe, _data(job.recipe, job.cache), job.folder, job.recorded)) as epochs:
            for epoch in epochs:
                if not self.alone:
                    release()  # frees memory that only evaluation needed, for the neighbours
                yield epoch

    def predict(self, job: Job, weights: Path, device: str) -> "tuple[np.ndarray, Scores | None] | None":
        from trainers.evaluation.bootstrap import resample, standard_errors
        from trainers.evaluation.predict import scores

        data = _data(job.recipe, job.cache)
        rows = data.table.split("test")
        if not rows:
            return None
        probable, logits = _judged(job, data, weights, device)
        if all(row.labels is None for row in rows):
            return logits, None
        found = scores(job.recipe, data, logits, split="test", fit=("train", "val"), probable=probable)
        errors = standard_errors(resample(logits, data.labels(data.table.indices("test")), data.categories))
        return logits, found.model_copy(update={"standard_errors": errors})

    def combine(self, job: Job) -> None:
        from trainers.evaluation.model_file import combined

        if job.ensemble is None:
            raise ValueError(f"{job.title} is not an ensemble")
        parts = [(_member(job, one).model, one.share, one.temperature) for one in job.ensemble.members]
        combined(parts, job.ensemble.temperature, RunFolder(job.folder).model)

    def look(self, job: Job, weights: Path, device: str) -> Look | None:
        from trainers import cross_validation
        from trainers.evaluation.predict import evaluate_tta

        train = job.recipe.train
        data = _data(job.recipe, job.cache)
        if train.tta.count == 1 or not (job.folds or data.table.split("val")):
            return None
        if folds := _folds(job):
            return cross_validation.look(job.computed, folds, job.folder, device=device)
        return evaluate_tta(job.computed, data, weights, device=device)

    def resample(self, job: Job) -> "np.ndarray | None":
        from trainers.evaluation.bootstrap import resample

        folds = _folds(job)
        data = folds.pooled if folds else _data(job.recipe, job.cache)
        if not (rows := data.table.indices("val")):
            return None
        logits = load_array(RunFolder(job.folder).val_logits)
        ranked = not job.recipe.train.thresholds.fit  # folds have own thresholds, so scores have no common order
        return resample(logits, data.labels(rows), data.categories, ranked=ranked)

    def predict_folds(self, job: Job, models: Sequence[Path], device: str) -> "list[np.ndarray]":
        from trainers.evaluation.predict import predict

        data = _data(job.recipe, job.cache)
        return [predict(job.computed, data, model, split="test", device=device) for model in models]

    def memory(self, device: str) -> float | None:
        from trainers.support.device import memory_gib

        return memory_gib(device)

    def resident(self, job: Job) -> bool:  # noqa: ARG002  the fake one needs the job
        from trainers.loading.image_store import DEVICE_IMAGES

        return bool(DEVICE_IMAGES.levels)


def _judged(job: Job, data: Data, weights: Path, device: str) -> "tuple[np.ndarray, np.ndarray]":
    """Return the test logits for probabilities, and those for answers, which have the thresholds subtracted."""
    from trainers.evaluation import model_file
    from trainers.evaluation.answers import logit_offset
    from trainers.evaluation.predict import predict

    if job.ensemble:
        notes, seen = model_file.read(weights), []
        for one, member in zip(job.ensemble.members, notes.members, strict=True):
            own, path = member.notes, _member(job, one).model
            looks = own.calibration.views
            seen.append(predict(own.computed, data, path, split="test", device=device, views=looks))
        return notes.mean(seen), notes.mean(seen, thresholds=True)
    views = job.recipe.train.tta if job.use_tta else None
    found = predict(job.computed, data, weights, split="test", device=device, views=views)
    counts = data.counts(data.table.indices("train", "val"))
    offsets = [logit_offset(data.categories, counts, _tau(job), thresholds) for thresholds in (None, job.thresholds)]
    return found - offsets[0], found - offsets[1]


def _member(job: Job, member: EnsembleMember) -> RunFolder:
    return RunFolder(job.folder).study.final(member.final)


def _folds(job: Job) -> "Folds | None":
    """Return the folds that a job trains, kept between the jobs of a warm worker; None if it is one training."""
    recipe = job.recipe
    return _parted(recipe.data, job.cache, recipe.train.framing, _files(recipe), job.folds) if job.folds else None


@lru_cache(maxsize=1)
def _parted(
    config: DataConfig, cache: Path, framing: Framing, files: tuple[tuple[str, str], ...], count: int
) -> "Folds":
    from trainers.cross_validation import Folds

    return Folds(_opened(config, cache, framing, files), count, config.split_seed)


def _tau(job: Job) -> float:
    """Return the strength of a final model's posterior correction."""
    return job.recipe.train.posthoc_logit_adjustment.tau if job.tau is None else job.tau


def _calibration(job: Job) -> "Calibration":
    """Return the calibration of a final model's logits, all of it fitted by the winner."""
    from trainers.evaluation.model_file import Calibration

    views = {"views": job.recipe.train.tta} if job.use_tta else {}
    return Calibration(**views, tau=_tau(job), thresholds=job.thresholds, temperature=job.temperature)


def _data(recipe: Recipe, cache: Path) -> Data:
    """Return the data set, kept open between the jobs of a warm worker."""
    return _opened(recipe.data, cache, recipe.train.framing, _files(recipe))


def _files(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    return tuple(recipe.extensions.items())


@lru_cache(maxsize=1)
def _opened(
    config: DataConfig,
    cache: Path,
    framing: Framing,
    files: tuple[tuple[str, str], ...],  # noqa: ARG001  another extension file may read other rows
) -> Data:
    return Data.open(config, cache, framing)


# ------------------------------------------------------------------------------------------- errors
def failed(job: Job, error: Exception) -> Failed:
    """Return the Failed of a job that ended with `error`."""
    said = (error.what if isinstance(error, UserError) else str(error)).strip()
    first = said.splitlines()[0] if said else ""
    named = first and isinstance(error, UserError | Diverged)
    text = f"{first}{_line(error)}" if named else f"{type(error).__name__}: {first}".rstrip(": ")
    detail = "".join(traceback.format_exception(error))
    return Failed(key=job.key, failure=failure_of(error), text=text[:300], detail=detail)


def _line(error: Exception) -> str:
    """Return the file and line of user code that an error is about, in brackets; empty if there is none."""
    name = Path(error.where).name if isinstance(error, UserError) else ""
    return f" ({name})" if re.fullmatch(r".+\.py:\d+", name) else ""


def failure_of(error: Exception) -> Failure:
    """Return the kind of failure. Torch's errors are recognised by name, so that torch is not loaded here."""
    if isinstance(error, Diverged):
        return "overflow" if isinstance(error, Overflowed) else "nan"
    if files.full(error):
        return "disk"
    return "oom" if _of_host(error) or "OutOfMemoryError" in _names(error) or _no_room(error) else "error"


def _no_room(error: Exception) -> bool:
    """True if a GPU, or a library on it, ran out of memory; never without torch loaded."""
    if "torch" not in sys.modules:
        return False
    from trainers.support.device import no_room

    return no_room(error)


def _of_host(error: Exception) -> bool:
    """True if the host ran out of memory."""
    return "MemoryError" in _names(error) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
