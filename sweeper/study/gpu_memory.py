"""What a study has learnt of a GPU's memory: how many images of a backbone and size pass through it at once."""

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

MIN_MICRO_BATCH = 4  # images: a batch norm makes nothing of fewer
LARGER = 1.1  # times the memory: what another GPU had no room for may fit


class BatchLimit(Message):
    """So many images passed, or are hoped to pass, through a GPU of so much memory in all."""

    images: int | None = Field(None, description="None: a whole batch")
    gib: float | None = Field(None, description="None where nobody knew: then it is true of every GPU")
    resident: bool = Field(True, description="whether the decoded images may lie on the GPU as well")


_KNOWN: TypeAdapter[dict[str, int | list[BatchLimit]]] = TypeAdapter(
    dict[str, int | list[BatchLimit]]
)  # int: how earlier versions wrote a limit


@dataclass(frozen=True)
class MachineInfo:
    """What a call of a sweep has; None where that is not known."""

    images: int | None = None  # to train on
    gpu: Callable[[], float | None] = lambda: None  # GiB in all of its smallest GPU, asked when it matters


UNKNOWN = MachineInfo()


class GpuMemoryLimits:
    """The micro-batches that trials begin with, from those that ran out of memory before; kept in a small file."""

    def __init__(self, path: Path, here: MachineInfo = UNKNOWN) -> None:
        self._path, self._here, self._known = path, here, _read(path)
        self._halved: set[int] = set()  # trials that had their second chance in this call

    def begin(self, job: Job) -> Job:
        """The new `job`, with the micro-batch that its backbone and image size have room for, and its images on the
        host where they had none on the GPU.
        """
        rooms = [room for room in self._known.get(_place(job.recipe.train), []) if not self.has_larger_gpu(room.gib)]
        images = _least(rooms)
        whole = images is None or images >= self._batch(job.recipe.train)
        resident = job.resident and all(room.resident for room in rooms)
        return job.model_copy(update={"micro_batch": job.micro_batch if whole else images, "resident": resident})

    def has_larger_gpu(self, gib: float | None) -> bool:
        """Whether every GPU here is larger than one of `gib` in all, so that what had no room there may have it."""
        return gib is not None and self._gpu is not None and self._gpu > LARGER * gib

    @cached_property
    def _gpu(self) -> float | None:
        return self._here.gpu()

    def unload(self, job: Job, gib: float | None = None) -> Job:
        """The `job` that ran out of memory beside the decoded images, without these on the GPU: the first remedy, for
        it changes no number. So later trials of its backbone and image size begin, on GPUs that are not larger.
        """
        self._remember(_place(job.recipe.train), BatchLimit(gib=gib, resident=False))
        return job.model_copy(update={"resident": False})

    def halve_micro_batch(self, job: Job, gib: float | None = None) -> Job | None:
        """The `job` that ran out of memory, with half the images at once that it had; None when it had that chance
        already, or when too few would be left.

        Half is what later trials of its backbone and image size begin with, either way, on GPUs that are not larger
        than this one, of `gib` in all.
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

    def said(self, job: Job, text: str) -> str:
        """How a job that ran out of memory goes on; `text` is what its worker said."""
        if job.micro_batch is None:
            return "out of GPU memory; continues with the images in the host's"
        train, batch = job.recipe.train, self._batch(job.recipe.train)
        hosts = "MemoryError" in text.replace("OutOfMemoryError", "") or "CPUAllocator" in text
        images, batches = job.micro_batch, (self._here.images or math.inf) // batch
        steps = math.ceil(batch / images) * int(min(train.accumulate, batches))
        return (
            f"out of {'memory' if hosts else 'GPU memory'}; continues with micro-batches of {images}, {steps} a step"
        )

    def _batch(self, train: TrainConfig) -> int:
        """Images in the largest batch that really occurs: there may be fewer to train on than a batch has."""
        return min(train.batch_size, self._here.images or train.batch_size)

    def _remember(self, place: str, room: BatchLimit) -> None:
        """One figure a size of GPU: the least."""
        alike = [room, *(one for one in self._known.get(place, []) if one.gib == room.gib)]
        others = [one for one in self._known.get(place, []) if one.gib != room.gib]
        least = BatchLimit(images=_least(alike), gib=room.gib, resident=all(one.resident for one in alike))
        self._known[place] = [*others, least]
        known = _KNOWN.dump_json(dict(self._known), indent=1, exclude_defaults=True)
        files.write_text(self._path, known.decode() + "\n")


def _least(rooms: Iterable[BatchLimit]) -> int | None:
    """The fewest images at once; None where whole batches passed."""
    return min((room.images for room in rooms if room.images is not None), default=None)


def _place(train: TrainConfig) -> str:
    return f"{train.backbone} {train.image_size}"


def _read(path: Path) -> dict[str, list[BatchLimit]]:
    try:
        known = _KNOWN.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        help = "delete it: what it holds is learnt again"
        raise EnvironmentFault("this file is damaged", where=str(path), help=help) from error
    return {place: [BatchLimit(images=one)] if isinstance(one, int) else one for place, one in known.items()}
