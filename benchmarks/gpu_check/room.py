"""Out of memory: evaluation takes fewer images, and training fails as oom, frees its memory and works in pieces."""

import gc
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sweeper.trial import Done, Failed, Job, Progress
from sweeper.worker import job as job_runner
from trainers.config import Recipe
from trainers.support.device import no_room

from . import subjects
from .findings import Notes
from .place import GIB, Cpu

TEXTS = (
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
LIMIT = 6.0  # GiB, too little for half the batch below, or for 512 images in evaluation


def memory(place: Cpu, notes: Notes) -> None:
    """Check evaluation and training under a memory limit, with training as in workers."""
    known = {text.splitlines()[0]: no_room(RuntimeError(text)) for text in TEXTS}
    notes.promise("every out-of-memory error of a GPU is recognised", all(known.values()), known=known)
    how = {"backbone": "resnet50", "batch_size": 128} if place.cuda else {"batch_size": 32}
    side, level = (224, 256) if place.cuda else (32, 64)
    _evaluation(place, notes, subjects.recipe(side, level, epochs=1, **how))
    place.forget()
    if lacking := _lacking(place):
        notes.skip("training out of memory", lacking)
        return
    with subjects.folder() as folder:
        _training(place, notes, subjects.recipe(side, level, epochs=1, **how), folder)


def _evaluation(place: Cpu, notes: Notes, how: Recipe) -> None:
    """Check that the logits are the same however few images fit at once."""
    batch = how.train.batch_size
    with subjects.run(place, how, subjects.noise(batch, 4 * batch, how.data.size or 64)) as run:
        run.lens.batch = 4 * batch
        whole = run.lens.logits(run.net, run.val).cpu()
        place.forget()
        with place.at_most(place.used() / 1024 + 1.5, images=batch):
            found = run.lens.logits(run.net, run.val).cpu()
        apart = (found - whole).abs().max().item()
        figures = {"of": 4 * batch, "images_at_once": run.lens.batch, "apart": apart}
        notes.promise(
            "evaluation out of memory takes fewer images at once",
            run.lens.batch < 4 * batch and apart < 0.1,
            **figures,
        )


def _training(place: Cpu, notes: Notes, how: Recipe, folder: Path) -> None:
    """Check the three attempts in their order: images on the device, images on the host, fewer images at once."""
    batch = how.train.batch_size
    _draw(folder / "images", batch + 32, how.data.size or 64)
    data = {"layout": "folder", "root": str(folder / "images"), "size": how.data.size}
    recipe = Recipe.model_validate({"data": data, "train": how.train.model_dump()})
    job = Job(study="check", trial=0, recipe=recipe, folder=folder / "whole", cache=folder / "cache")
    with place.at_most(LIMIT, images=batch // 4):
        for asked, resident in ((job, True), (job.model_copy(update={"resident": False}), False)):
            ended = _advanced(place, asked)
            as_oom = isinstance(ended, Failed) and ended.failure == "oom"
            where = ended.resident if isinstance(ended, Failed) else None
            holds = as_oom and where == (resident and place.cuda)
            what = f"training out of memory fails as oom, images {'on the device' if resident else 'on the host'}"
            notes.promise(what, holds, said=getattr(ended, "text", ended.tag)[:160], resident=where)
        place.forget()
        notes.promise("a failed training frees its memory", place.used() < 64, mib=round(place.used()))
        smaller = job.model_copy(update={"resident": False, "micro_batch": batch // 8, "folder": folder / "pieces"})
        ended = _advanced(place, smaller)
        notes.promise(
            "training on fewer images works", isinstance(ended, Progress), said=getattr(ended, "text", "")[:160]
        )


def _advanced(place: Cpu, job: Job) -> Progress | Done | Failed:
    """Return the first message of a worker that has the device to itself."""
    Path(job.folder).mkdir(exist_ok=True)
    messages = job_runner.run(job, "cuda:0" if place.cuda else "cpu", alone=True)
    first = job_runner.advance(messages, None)
    messages.close()
    del messages
    gc.collect()
    return first


def _draw(root: Path, count: int, side: int) -> None:
    """Write noise images in two classes, a fifth of them val."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = root / ("val" if number % 5 == 0 else "train") / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(place / f"{number}.png")


def _lacking(place: Cpu) -> str:
    """Return the reason why this GPU is too small or too full for this check, or an empty text."""
    free = torch.cuda.mem_get_info()[0] / GIB if place.cuda else LIMIT
    return "" if free >= LIMIT else f"{free:.1f} GiB are free, but {LIMIT} are needed"
