"""What a study has learnt of a GPU's memory: how many images of a backbone and size pass through it at once."""

import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sweeper.errors import EnvironmentFault
from sweeper.trial import Job
from trainers import files
from trainers.config import TrainConfig

LEAST = 4  # images: a batch norm makes nothing of fewer
_KNOWN: TypeAdapter[dict[str, int]] = TypeAdapter(dict[str, int])


@dataclass(frozen=True)
class Here:
    """What a call of a sweep has; None where that is not known."""

    images: int | None = None  # to train on


UNKNOWN = Here()


class Memory:
    """The micro-batches that trials begin with, from those that ran out of memory before; kept in a small file."""

    def __init__(self, path: Path, here: Here = UNKNOWN) -> None:
        self._path, self._here, self._known = path, here, _read(path)
        self._halved: set[int] = set()  # trials that had their second chance in this call

    def begin(self, job: Job) -> Job:
        """The new `job`, with the micro-batch that its backbone and image size have room for."""
        room = self._known.get(_place(job.recipe.train))
        if room is None or room >= self._batch(job.recipe.train):
            return job
        return job.model_copy(update={"micro_batch": room})

    def halve(self, job: Job) -> Job | None:
        """The `job` that ran out of memory, with half the images at once that it had; None when it had that chance
        already, or when too few would be left.

        Half is what later trials of its backbone and image size begin with, either way.
        """
        batch = self._batch(job.recipe.train)
        images = min(job.micro_batch or batch, batch) // 2
        if images < LEAST:
            return None
        self._remember(_place(job.recipe.train), images)
        if job.trial in self._halved:
            return None
        self._halved.add(job.trial)
        return job.model_copy(update={"micro_batch": images})

    def said(self, job: Job, text: str) -> str:
        """How a job that ran out of memory goes on; `text` is what its worker said."""
        train, batch = job.recipe.train, self._batch(job.recipe.train)
        hosts = "MemoryError" in text.replace("OutOfMemoryError", "") or "CPUAllocator" in text
        images, batches = job.micro_batch or batch, (self._here.images or math.inf) // batch
        steps = math.ceil(batch / images) * int(min(train.accumulate, batches))
        return f"out of {'memory' if hosts else 'GPU memory'}; goes on with micro-batches of {images}, {steps} a step"

    def _batch(self, train: TrainConfig) -> int:
        """Images in the largest batch that really occurs: there may be fewer to train on than a batch has."""
        return min(train.batch_size, self._here.images or train.batch_size)

    def _remember(self, place: str, images: int) -> None:
        self._known[place] = min(images, self._known.get(place, images))
        files.write_text(self._path, _KNOWN.dump_json(self._known, indent=1).decode() + "\n")


def _place(train: TrainConfig) -> str:
    return f"{train.backbone} {train.image_size}"


def _read(path: Path) -> dict[str, int]:
    try:
        return _KNOWN.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        help = "delete it: what it holds is learnt again"
        raise EnvironmentFault("this file is damaged", where=str(path), help=help) from error
