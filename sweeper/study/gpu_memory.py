"""The limits of GPU memory that a study has learnt: images per pass, by backbone and image size."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from sweeper.errors import EnvironmentFault
from sweeper.trial import Job, Message
from trainers.config import TrainConfig
from trainers.support import files

MIN_MICRO_BATCH = 4  # images; batch norm does not work with fewer
LARGER = 1.1  # times the memory from which a GPU may fit what another could not


class BatchLimit(Message):
    """The number of images that fit, or may fit, in one pass on a GPU with `gib` of total memory."""

    images: int | None = Field(None, description="None: a whole batch")
    gib: float | None = Field(None, description="None if unknown: the limit then applies to every GPU")
    resident: bool = Field(True, description="whether the decoded images may be on the GPU as well")


_KNOWN: TypeAdapter[dict[str, int | list[BatchLimit]]] = TypeAdapter(
    dict[str, int | list[BatchLimit]]
)  # int: the format of earlier versions


@dataclass(frozen=True)
class MachineInfo:
    """The machine and data of this session; None where unknown."""

    images: int | None = None  # number of images to train on
    gpu: Callable[[], float | None] = lambda: None  # total GiB of the smallest GPU, queried when needed


UNKNOWN = MachineInfo()


class GpuMemoryLimits:
    """The micro-batches that trials start with, learnt from trials that ran out of memory; kept in a small file."""

    def __init__(self, path: Path, here: MachineInfo = UNKNOWN) -> None:
        self._path, self._here, self._known = path, here, _read(path)
        self._halved: set[int] = set()  # trials that were halved in this session

    def begin(self, job: Job) -> Job:
        """Return the new `job` with a micro-batch that fits its backbone and image size, and with its images on the
        host if they did not fit on the GPU.
        """
        rooms = [room for room in self._known.get(_place(job.recipe.train), []) if not self.has_larger_gpu(room.gib)]
        images = _least(rooms)
        whole = images is None or images >= self._batch(job.recipe.train)
        resident = job.resident and all(room.resident for room in rooms)
        return job.model_copy(update={"micro_batch": job.micro_batch if whole else images, "resident": resident})

    def has_larger_gpu(self, gib: float | None) -> bool:
        """True if every GPU here is larger than one with `gib` in total, so that more may fit than there."""
        return gib is not None and self._gpu is not None and self._gpu > LARGER * gib

    @cached_property
    def _gpu(self) -> float | None:
        return self._here.gpu()

    def unload(self, job: Job, gib: float | None = None) -> Job:
        """Return the `job` that ran out of memory without its decoded images on the GPU. This is the first remedy, as
        it changes no results. Later trials of its backbone and image size start this way on GPUs that are not larger.
        """
        self._remember(_place(job.recipe.train), BatchLimit(gib=gib, resident=False))
        return job.model_copy(update={"resident": False})

    def halve_micro_batch(self, job: Job, gib: float | None = None) -> Job | None:
        """Return the `job` that ran out of memory with half its micro-batch; None if it was halved already in this
        session, or if too few images would remain.

        Unless too few remain, later trials of its backbone and image size start with half as well, on GPUs that are
        not larger than this one, with `gib` in total.
        """
        batch = self._batch(job.recipe.train)
        images = min(job.micro_batch or batch, batch) // 2
        if images < MIN_MICRO_BATCH:
            return None
        self._remember(_place(job.recipe.train), BatchLimit(images=images, gib=gib))
        if job.trial in self._halved:
            return None
        self._halved.add(job.trial)
        return job.model_copy(update={"micro_batch": images})

    def explanation(self, job: Job, text: str) -> str:
        """Return a message on how a job that ran out of memory continues; `text` is its worker's error."""
        if job.micro_batch is None:
            return "out of GPU memory; continues with the images in host memory"
        train, batch = job.recipe.train, self._batch(job.recipe.train)
        hosts = "MemoryError" in text.replace("OutOfMemoryError", "") or "CPUAllocator" in text
        images, batches = job.micro_batch, (self._here.images or math.inf) // batch
        steps = math.ceil(batch / images) * int(min(train.accumulate, batches))
        return (
            f"out of {'memory' if hosts else 'GPU memory'}; "
            f"continues with micro-batches of {images}, {steps} per step"
        )

    def _batch(self, train: TrainConfig) -> int:
        """Return the images in the largest batch that occurs; the training set may be smaller than a batch."""
        return min(train.batch_size, self._here.images or train.batch_size)

    def _remember(self, place: str, room: BatchLimit) -> None:
        """Store a limit, keeping only the lowest one per size of GPU."""
        alike = [room, *(one for one in self._known.get(place, []) if one.gib == room.gib)]
        others = [one for one in self._known.get(place, []) if one.gib != room.gib]
        least = BatchLimit(images=_least(alike), gib=room.gib, resident=all(one.resident for one in alike))
        self._known[place] = [*others, least]
        known = _KNOWN.dump_json(dict(self._known), indent=1, exclude_defaults=True)
        files.write_text(self._path, known.decode() + "\n")


def _least(rooms: Iterable[BatchLimit]) -> int | None:
    """Return the lowest limit on images; None if none is limited."""
    return min((room.images for room in rooms if room.images is not None), default=None)


def _place(train: TrainConfig) -> str:
    return f"{train.backbone} {train.image_size}"


def _read(path: Path) -> dict[str, list[BatchLimit]]:
    try:
        known = _KNOWN.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        help = "delete it: the study learns its contents again"
        raise EnvironmentFault("this file is damaged", where=str(path), help=help) from error
    return {place: [BatchLimit(images=one)] if isinstance(one, int) else one for place, one in known.items()}
