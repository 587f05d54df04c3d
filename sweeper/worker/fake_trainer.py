"""A trainer that follows a learning curve instantly, for tests of everything around training. Loads no torch.

Chosen by SWEEP_TRAINER=fake. An epoch takes SWEEP_FAKE_SECONDS (default 0), each checkpoint file is padded by
SWEEP_FAKE_BYTES (default 0), and a GPU has SWEEP_FAKE_GIB of memory in total. Its guarantees are those of the real
trainer: the same epochs for the same recipe, checkpoints by the same thread and clock, stored epochs yielded again,
and everything on disk when the last epoch is yielded or the generator is closed.

A backbone named `broken.<trouble>` fails in its second epoch: nan, overflow (unless in full precision), oom, oom_64
(while 64 images or more pass at once), oom_images (while the decoded images may be on the GPU), disk, error; kill
sends itself SIGKILL, hang SIGSTOP; stall waits forever in a live process; grind computes forever in C and so blocks
all other threads. With the suffix `_once` it fails only the first time.
"""

import errno
import itertools
import json
import math
import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from sweeper.store.paths import RunFolder
from sweeper.trial import Job
from trainers.config import Recipe, TrainConfig
from trainers.data import layouts
from trainers.data.table import Category, Row, known_images, label_matrix
from trainers.epoch import Epoch, FoldScores, Look, Scores
from trainers.metrics.definitions import lacking, minimizes
from trainers.support.errors import Diverged, Overflowed, UserError
from trainers.support.failpoints import failpoint
from trainers.support.position import Cursor, Position
from trainers.support.threads import CheckpointWriter

BATCHES = 10  # per epoch, including evaluation
CATEGORIES = (Category("pattern", ()), Category("sleeve", ()))  # if the data set is absent


@dataclass(frozen=True)
class Switches:
    """The settings of the fake trainer from the environment."""

    on: bool
    seconds: float
    padding: int
    gib: float | None

    @classmethod
    def read(cls) -> "Switches":
        """Read SWEEP_TRAINER, SWEEP_FAKE_SECONDS, SWEEP_FAKE_BYTES and SWEEP_FAKE_GIB."""
        return cls(
            on=os.environ.get("SWEEP_TRAINER") == "fake",
            seconds=float(os.environ.get("SWEEP_FAKE_SECONDS") or 0),
            padding=int(os.environ.get("SWEEP_FAKE_BYTES") or 0),
            gib=float(os.environ.get("SWEEP_FAKE_GIB") or 0) or None,
        )


class OutOfMemoryError(RuntimeError):
    """An error with the name of torch's, which is recognised by its name."""


def train(job: Job, fit: Sequence[str], device: str, cursor: Cursor) -> Generator[Epoch]:  # noqa: ARG001  of both
    """Yield the epochs that training would if a network were a formula."""
    seconds = Switches.read().seconds
    recipe, folder = job.recipe, RunFolder(job.folder)
    asked = categories(recipe)
    epochs = _stored(folder, recipe)
    checkpoint = _Checkpoint(folder, recipe, epochs)
    yield from epochs
    last = recipe.epochs if job.folds else recipe.train.epochs
    with checkpoint.writer:
        for index in range(len(epochs), last):
            _break(job, index)
            _pass(cursor, seconds)
            epoch = _epoch(recipe, index, asked, validated="val" not in fit, seconds=seconds)
            if job.folds and epoch.val and epoch.number == recipe.epochs:
                each = FoldScores(epoch=recipe.train.epochs, **epoch.val.model_dump())
                epoch = epoch.model_copy(update={"folds": (each,) * job.folds})
            stands = job.recorded[index] if index < len(job.recorded) else epoch
            checkpoint.add(stands, last=index + 1 == last)
            yield stands.measured_as(epoch)


def _pass(cursor: Cursor, seconds: float) -> None:
    """Take the time of an epoch: batches of training and a last one of evaluation."""
    for done in range(1, BATCHES):
        time.sleep(seconds / BATCHES)
        cursor.at = Position("train", done, BATCHES - 1)
    time.sleep(seconds / BATCHES)
    cursor.at = None


def predict(job: Job, weights: Path, device: str) -> tuple[np.ndarray, Scores | None] | None:  # noqa: ARG001
    """Return random logits [N, sum of classes] float32 of the test images, and made-up scores if any has labels."""
    try:
        table = layouts.read(job.recipe.data)
    except UserError:
        return None
    rows = table.split("test")
    if not rows:
        return None
    classes = sum(len(category.classes) for category in table.categories)
    draw = np.random.default_rng(job.recipe.train.seed)
    logits = draw.normal(size=(len(rows), classes)).astype(np.float32)
    if all(row.labels is None for row in rows):
        return logits, None
    found = scores(quality(job.recipe.train), table.categories, job.recipe.further)
    return logits, found.model_copy(update={"category_answers": known_answers(rows, table.categories)})


def combine(job: Job) -> None:
    """Raise ValueError: formulas have no predictions to combine."""
    raise ValueError(f"{job.title} consists of formulas")


def known_answers(rows: Sequence[Row], asked: Sequence[Category]) -> dict[str, int]:
    """Return the number of images with a known answer per category; empty if no answer is missing."""
    known = known_images(label_matrix(rows, asked), asked)
    return {one.name: images for one, images in zip(asked, known, strict=True)} if min(known) < len(rows) else {}


def look(job: Job, weights: Path, device: str) -> Look | None:  # noqa: ARG001
    """Return None: a formula looks the same from every view."""
    return None


def resample(job: Job) -> np.ndarray | None:  # noqa: ARG001
    """Return None: a formula has no predictions."""
    return None


def predict_folds(job: Job, models: Sequence[Path], device: str) -> list[np.ndarray]:  # noqa: ARG001
    """Return nothing: a formula has no fold models to predict with."""
    return []


def memory(device: str) -> float | None:  # noqa: ARG001
    """Return the memory set in the environment."""
    return Switches.read().gib


def resident(job: Job) -> bool:
    """True only for the backbone that runs out of memory because of resident images."""
    return job.resident and job.recipe.train.backbone == "broken.oom_images"


def categories(recipe: Recipe) -> tuple[Category, ...]:
    """Return the data set's categories, or two made-up ones if it does not exist."""
    try:
        return tuple(layouts.categories(recipe.data))
    except UserError:
        return CATEGORIES


def quality(config: TrainConfig) -> float:
    """Return the limit of the curve in 0..1, best at lr 1e-3 and loss gamma 2, with a share from the backbone."""
    rate = math.exp(-((math.log10(config.optimizer.lr) + 3) ** 2) / 2)
    focus = math.exp(-((getattr(config.loss, "gamma", 2.0) - 2) ** 2) / 8)
    return 0.3 + 0.35 * rate + 0.15 * focus + 0.15 * _noise(config.backbone) + 0.01 * _noise("seed", config.seed)


def _noise(*parts: object) -> float:
    return zlib.crc32(repr(parts).encode()) / 2**32


def _epoch(recipe: Recipe, index: int, asked: Sequence[Category], *, validated: bool, seconds: float) -> Epoch:
    config = recipe.train
    learnt = 1 - math.exp(-3 * (index % config.epochs + 1) / config.epochs)
    value = quality(config) * learnt + 0.01 * _noise(config.backbone, config.seed, index)
    return Epoch(
        number=index + 1,
        train=scores(min(value + 0.02, 1.0), asked),
        val=scores(value, asked, recipe.further) if validated else None,
        lr=config.optimizer.lr,
        seconds=seconds,
        images_per_second=1000.0,
        peak_memory_gb=0.0,
        time=time.time(),
    )


def scores(value: float, asked: Sequence[Category], further: Sequence[str] = ()) -> Scores:
    """Return made-up scores with the metrics of data with these categories, and the `further` ones."""
    figures = {
        "overall_accuracy": value,
        "mean_class_accuracy": value * 0.9,
        "macro_precision": value * 0.9,
        "macro_recall": value * 0.9,
        "macro_f1": value * 0.9,
        "micro_f1": value * 0.9,
        "mean_average_precision": value * 0.9,
        "mean_category_score": value,
    }
    for metric in lacking([category.multi for category in asked]):
        figures.pop(metric, None)
    more = {name: 1 - value if minimizes(name) else value for name in further}
    names = [category.name for category in asked]
    return Scores(loss=1 - value, category_accuracy=dict.fromkeys(names, value), further=more, **figures)


class _Checkpoint:
    """The checkpoint of one run, consistent at any time but not synced: it is not used to test power cuts."""

    def __init__(self, folder: RunFolder, recipe: Recipe, epochs: Sequence[Epoch]) -> None:
        self._folder, self._recipe = folder, recipe
        self._head, self._padding = recipe.model_dump_json(), Switches.read().padding
        self._lines = [epoch.model_dump_json() for epoch in epochs]
        self._best = max(map(recipe.rank, epochs), default=-math.inf)
        self._model: float | None = None  # its value until it is on disk
        self.writer = CheckpointWriter()

    def add(self, epoch: Epoch, *, last: bool) -> None:
        """Add `epoch`, with the weights if it is the best so far."""
        self.writer.check()
        self._lines.append(epoch.model_dump_json())
        if (rank := self._recipe.rank(epoch)) > self._best:
            self._best, self._model = rank, epoch.known(self._recipe.metric) or 0.0
        self.writer.epoch(epoch.seconds, self._copied, last=last)

    def _copied(self) -> Callable[[], None]:
        model, self._model = self._model, None
        return partial(self._write, list(self._lines), model)

    def _write(self, lines: Sequence[str], model: float | None) -> None:
        if model is not None:
            _put(self._folder.model, _safetensors(model, self._padding))
        filler = "0" * self._padding if len(lines) < self._recipe.train.epochs else ""
        state = f'{{"recipe": {self._head}, "epochs": [{", ".join(lines)}], "padding": "{filler}"}}'
        _put(self._folder.checkpoint, state.encode())


def _put(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        failpoint(f"written {path.name}")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    failpoint(f"renamed {path.name}")


def _safetensors(value: float, padding: int) -> bytes:
    """Return a safetensors file with a float32 tensor, `value`, and `padding` more bytes."""
    tensors = {
        "value": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "padding": {"dtype": "U8", "shape": [padding], "data_offsets": [4, 4 + padding]},
    }
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", value) + bytes(padding)


def _stored(folder: RunFolder, recipe: Recipe) -> list[Epoch]:
    """Return the checkpoint's epochs; none if it is absent or, after printing why, damaged or of another recipe."""
    if not folder.checkpoint.exists():
        return []
    try:
        state = json.loads(folder.checkpoint.read_text())
        if Recipe.model_validate(state["recipe"]) != recipe:
            raise ValueError("it belongs to another recipe")
        return [Epoch.model_validate(epoch) for epoch in state["epochs"]]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        print(f"{folder.checkpoint}: not usable, starting again ({error})", flush=True)
        return []


def _break(job: Job, index: int) -> None:
    family, _, trouble = job.recipe.train.backbone.partition(".")
    if family != "broken" or index != 1:
        return
    if trouble.endswith("_once") and not _first_time(RunFolder(job.folder)):
        return
    trouble = trouble.removesuffix("_once")
    if trouble == "nan":
        raise Diverged("the loss is nan in epoch 2")
    if trouble == "overflow" and not job.full_precision:
        raise Overflowed("fp16 overflows in epoch 2")
    if trouble == "oom" or (trouble == "oom_64" and (job.micro_batch or job.recipe.train.batch_size) >= 64):
        raise OutOfMemoryError("CUDA out of memory")
    if trouble == "oom_images" and job.resident:
        raise OutOfMemoryError("CUDA out of memory")
    if trouble == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if trouble == "error":
        raise ValueError("this recipe is broken\nin two lines")
    _vanish(trouble)


def _vanish(trouble: str) -> None:
    """Cause the troubles of a process that it cannot report itself."""
    if trouble == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if trouble == "stall":
        threading.Event().wait()
    if trouble == "grind":
        sum(itertools.repeat(0))


def _first_time(folder: RunFolder) -> bool:
    mark = folder.root / "killed"
    seen = mark.exists()
    mark.touch()
    return not seen
