"""Speed: R, an epoch over the same steps on one batch in memory; its bottleneck; trials side by side."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trainers.config import Recipe
from trainers.loading.loader import Batch
from trainers.train import TrainingRun

from . import subjects
from .findings import Notes
from .place import Cpu

ROUNDS = 3
PROFILED = 5  # steps
NEIGHBOUR_S = 8.0  # training time of each of several trials, once all have started


@dataclass(frozen=True)
class Case:
    """A network and its training; `metric` is the largest R, None if the launching thread is the bottleneck."""

    backbone: str
    side: int
    images: int
    batch: int = 64
    metric: float | None = None
    train: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe, with more epochs than are timed."""
        how = {"backbone": self.backbone, "batch_size": self.batch, "epochs": 99, "schedule": "constant"}
        return subjects.recipe(self.side, subjects.level(self.side), **how, **self.train)


GPU = (
    Case("resnet50", 224, 2048, metric=1.05),
    Case("mobilenetv3_large_100", 112, 4096),
    Case("vit_small_patch16_224", 224, 2048, metric=1.05),
    Case("resnet50", 224, 2048, metric=1.05, train={"weight_averaging": "ema"}),
    Case("convnext_tiny", 224, 2048, metric=1.05, train={"optimizer": {"name": "adamw", "layer_decay": 0.8}}),
    Case("resnet50", 224, 2048, train={"loss": "asymmetric"}),
    Case("mobilenetv3_large_100", 112, 4096, train={"weight_averaging": "ema", "loss": "asymmetric"}),
    Case("resnet18", 64, 8192),
)
CPU = (Case(subjects.TINY, 32, 64, 8), Case(subjects.TINY, 32, 64, 8, train={"weight_averaging": "ema"}))


# ----------------------------------------------------------------------------------------- speed
def speed(place: Cpu, notes: Notes) -> None:
    """Measure R of each network, images per second, and where a step's time goes."""
    for case in GPU if place.cuda else CPU:
        data = subjects.noise(case.images, 4 * case.batch, subjects.level(case.side))
        place.forget()
        with subjects.run(place, case.recipe, data) as run:
            ratio, figures = _measured(place, run)
        what = f"{case.backbone} at {case.side} pixels {case.train or ''}"
        if case.metric is None:
            notes.figure(what, R=ratio, **figures)
        else:
            notes.promise(what, ratio <= case.metric, R=ratio, metric=case.metric, **figures)


def _measured(place: Cpu, run: TrainingRun) -> tuple[float, dict[str, Any]]:
    """Return R, the median over rounds in which both lanes take turns, and further figures."""
    batch, images = _one(run), len(run.rows)
    steps = images // run.config.batch_size
    run.fit(0), _floor(place, run, batch, steps)
    epochs, floors = [], []
    for _ in range(ROUNDS):
        epochs.append(_seconds(place, lambda: run.fit(0)))
        floors.append(_floor(place, run, batch, steps))
    ratio = round(statistics.median(one / whole for one, (whole, _) in zip(epochs, floors, strict=True)), 3)
    step, launch = (1000 * statistics.median(part) / steps for part in zip(*floors, strict=True))
    busy = place.busy_ms(lambda: [subjects.step(run, batch) for _ in range(PROFILED)]) / PROFILED
    figures = {"images_per_s": round(images / statistics.median(epochs)), "step_ms": round(step, 2)}
    figures |= {"launching_ms": round(launch, 2), "device_ms": round(busy, 2), **place.peaks()}
    bound = "launching" if launch > 0.9 * step else "device"
    return ratio, {**figures, "bound_by": bound, **_others(place, run)}


def _one(run: TrainingRun) -> Batch:
    """Return a batch that nothing overwrites."""
    (batch,) = subjects.batches(run, 1)
    return replace(batch, images=batch.images.clone(memory_format=torch.preserve_format))


def _floor(place: Cpu, run: TrainingRun, batch: Batch, steps: int) -> tuple[float, float]:
    """Return the seconds of `steps` steps on one batch: until the device is done, and until all are launched."""
    run.net.train()
    place.wait()
    began = time.perf_counter()
    for _ in range(steps):
        subjects.step(run, batch)
    asked = time.perf_counter() - began
    place.wait()
    return time.perf_counter() - began, asked


def _others(place: Cpu, run: TrainingRun) -> dict[str, int]:
    """Return the images per second of evaluation, and of training with the images on the device."""
    run.evaluate()
    val = _seconds(place, run.evaluate)
    run.lens.resident = True
    run.fit(0)
    resident = _seconds(place, lambda: run.fit(0))
    return {"val_images_per_s": round(len(run.val) / val), "resident_images_per_s": round(len(run.rows) / resident)}


def _seconds(place: Cpu, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    place.wait()
    return time.perf_counter() - began


# ---------------------------------------------------------------------------------------- packed
def packed(place: Cpu, notes: Notes) -> None:
    """Measure the gain of several trials of a small network side by side, one process each, as with --slots."""
    alone = 0.0
    for count in (1, 2, 4) if place.cuda else (1,):
        with subjects.folder() as folder:
            files = [folder / f"{number}.jsonl" for number in range(count)]
            ended = [one.wait() for one in [_started(place, str(file)) for file in files]]
            found = [finding.figures for file in files for finding in Notes(file).read()]
        whole = sum(figures["images_per_s"] for figures in found)
        alone = alone or whole
        figures = {"images_per_s": round(whole), "gain": round(whole / max(alone, 1), 2), **found[0]} if found else {}
        notes.promise(f"{count} side by side", ended == [0] * count and len(found) == count, codes=ended, **figures)


def _started(place: Cpu, file: str) -> subprocess.Popen[bytes]:
    words = ["--device", place.name, "--section", "neighbour", "--notes", file]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.gpu_check", *words])


def neighbour(place: Cpu, notes: Notes) -> None:
    """Run one of several trials, and record its images per second after an epoch of warm-up."""
    backbone, images, batch = ("mobilenetv3_large_100", 2048, 64) if place.cuda else (subjects.TINY, 32, 8)
    side = 112 if place.cuda else 32
    how = subjects.recipe(side, subjects.level(side), backbone=backbone, batch_size=batch, epochs=99)
    with subjects.run(place, how, subjects.noise(images, 8, subjects.level(side))) as run:
        run.fit(0)
        paces, until = [], time.monotonic() + (NEIGHBOUR_S if place.cuda else 1)
        while time.monotonic() < until:
            paces.append(run.fit(1)[2])
    notes.figure("neighbour", images_per_s=round(statistics.median(paces)), **place.peaks())
