"""The real trainer as a worker calls it. Torch is loaded by the first call, never by importing this."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.trial import Job
from trainers.config import DataConfig, Epoch, Scores

if TYPE_CHECKING:
    import numpy as np

    from trainers.data.batches import Data


def train(job: Job, fit: Sequence[str], device: str) -> Iterator[Epoch]:
    """The epochs of `job`, trained on the splits in `fit`; those in its checkpoint come first, at once."""
    from trainers.train import train as epochs

    return epochs(job.recipe, _data(job.recipe.data, job.cache), job.folder, fit=tuple(fit), device=device)


def predict(job: Job, weights: Path, device: str) -> "tuple[np.ndarray, Scores | None] | None":
    """Logits [N, sum of classes] of the test images, their scores if all have labels; None without such images."""
    from trainers import metrics
    from trainers import predict as predictor

    data = _data(job.recipe.data, job.cache)
    rows = data.table.split("test")
    if not rows:
        return None
    logits = predictor.predict(job.recipe, data, weights, split="test", device=device)
    if any(row.labels is None for row in rows):
        return logits, None
    labels = data.labels(data.table.indices("test"))
    return logits, metrics.scores(logits, labels, data.table.categories)


@lru_cache(maxsize=1)
def _data(config: DataConfig, cache: Path) -> "Data":
    """The data set, kept open between the jobs of a warm worker."""
    from trainers.data.batches import Data

    return Data.open(config, cache)
