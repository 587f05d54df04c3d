"""Whole runs: they learn in every format, resume, free their memory, and can be compiled."""

import importlib.util
import itertools
import os
import shutil
import statistics
import time
from typing import Any
from unittest import mock

import numpy as np
from torch._dynamo.utils import counters

from trainers.evaluation.predict import predict
from trainers.support.threads import INTERVAL_VARIABLE
from trainers.train import train

from . import subjects
from .findings import Notes
from .place import Cpu

AVERAGES: tuple[dict[str, Any], ...] = ({}, {"weight_averaging": {"name": "ema", "decay": 0.9}})
AVERAGES += ({"weight_averaging": {"name": "swa", "start": 0.5}},)


def learns(place: Cpu, notes: Notes) -> None:
    """Check that every format learns an easy task, and that the model answers on the CPU as on the device."""
    data, epochs = subjects.colours(256, 96, 64), 6
    size = {"backbone": "resnet18" if place.cuda else subjects.TINY, "batch_size": 32, "epochs": epochs}
    for number, precision in enumerate(place.formats):
        for average in AVERAGES if number == 0 else AVERAGES[:1]:
            rate = {"optimizer": {"name": "adamw", "lr": 1e-3 if place.cuda else 1e-2}}
            how = subjects.recipe(64, 64, precision=precision, **size, **average, **rate)
            plain = how.model_copy(update={"train": how.train.model_copy(update={"precision": "fp32"})})
            with subjects.folder() as folder:
                seen = list(train(how, data, folder, device=place.name))
                weights = folder / "model.safetensors"
                there = predict(how, data, weights, split="val", device=place.name)
                here = predict(plain, data, weights, split="val")
            accuracy = max(epoch.value("overall_accuracy") for epoch in seen)
            alike = float(np.mean(here.argmax(1) == there.argmax(1)))
            name = average.get("weight_averaging", {}).get("name", "no average")
            figures = {"accuracy": round(accuracy, 3), "same_answers_on_the_cpu": round(alike, 3)}
            apart = float(np.abs(here - there).max())
            notes.promise(f"learns in {precision}, {name}", accuracy > 0.9 and alike > 0.97, **figures, apart=apart)


def resumes(place: Cpu, notes: Notes) -> None:
    """Check that a run that stopped after two of four epochs resumes as if it had not stopped."""
    data = subjects.colours(256, 96, 64)
    for precision in [name for name in place.formats if name != "fp32"] or ["fp32"]:
        how = subjects.recipe(
            64, 64, precision=precision, epochs=4, batch_size=32, weight_averaging="ema", clip_norm=1.0
        )
        with subjects.folder() as one, subjects.folder() as other:
            whole = [epoch.val.loss for epoch in train(how, data, one, device=place.name) if epoch.val]
            list(itertools.islice(train(how, data, other, device=place.name), 2))
            resumed = [epoch.val.loss for epoch in train(how, data, other, device=place.name) if epoch.val]
        apart = max(abs(a - b) for a, b in zip(whole, resumed, strict=True))
        holds = len(resumed) == 4 and apart <= (0.2 if place.cuda else 0.0)
        notes.promise(f"resumes in {precision}", holds, apart=apart, whole=whole, resumed=resumed)


def trial(place: Cpu, notes: Notes) -> None:
    """Measure the share of a trial outside training and evaluation, with a checkpoint after each epoch.

    Then check that the trial frees its memory.
    """
    how = {"backbone": "resnet50", "batch_size": 64} if place.cuda else {}
    side, level, images = (224, 256, 2560) if place.cuda else (32, 64, 64)
    data = subjects.noise(images, images // 5, level)
    inside, stamps = [], []
    with subjects.folder() as folder, mock.patch.dict(os.environ, {INTERVAL_VARIABLE: "0"}):
        asked = subjects.recipe(side, level, epochs=4, weight_averaging="ema", **how)
        for epoch in train(asked, data, folder, device=place.name, resident=True):
            inside.append(epoch.seconds)
            stamps.append(time.perf_counter())
        mib = {path.name: path.stat().st_size >> 20 for path in folder.iterdir()}
    between = [after - before for before, after in itertools.pairwise(stamps)]
    share = statistics.median(max(0.0, 1 - work / whole) for work, whole in zip(inside[1:], between, strict=True))
    figures = {"epoch_s": round(statistics.median(inside), 2), "files_mib": mib}
    notes.figure(
        "share of a trial between its epochs (checkpoints)", share=round(share, 3), **figures, **place.peaks()
    )
    place.forget()
    notes.promise("a finished trial frees its memory", place.used() < 64, mib=round(place.used()))


def compiled(place: Cpu, notes: Notes) -> None:
    """Measure the cost and gain of torch.compile, and check that the loss is the same."""
    if lacking := _no_compiler(place):
        notes.skip("torch.compile", lacking)
        return
    how = {"backbone": "resnet18", "batch_size": 64} if place.cuda else {}
    side, level, images = (224, 256, 1024) if place.cuda else (32, 64, 32)
    data, paces, losses = subjects.noise(images, images // 5, level), {}, {}
    for on in (False, True):
        counters.clear()
        asked = subjects.recipe(side, level, epochs=4, compile=on, augment={"horizontal_flip": 0.0}, **how)
        with subjects.run(place, asked, data) as run:
            began = time.perf_counter()
            losses[on] = run.fit(0)[0].loss
            run.evaluate()
            seconds = time.perf_counter() - began
            paces[on] = max(run.fit(index)[2] for index in (1, 2))
        graphs, breaks = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
        notes.figure(
            f"compile: {str(on).lower()}",
            first_epoch_s=round(seconds, 1),
            images_per_s=round(paces[on]),
            graphs=graphs,
            breaks=breaks,
        )
    same = abs(losses[True] - losses[False]) < 0.05 * abs(losses[False])
    notes.promise(
        "a compiled network has the same loss", same, losses=losses, gain=round(paces[True] / paces[False], 2)
    )


def _no_compiler(place: Cpu) -> str:
    """Return the reason why torch.compile cannot work here, or an empty text."""
    named = os.environ.get("CXX", "").split()[:1] or ["g++", "clang++"]
    if not any(map(shutil.which, named)):
        return "there is no C++ compiler"
    return "there is no triton" if place.cuda and importlib.util.find_spec("triton") is None else ""
