"""A model in this process, for Python: the only place of the library that loads torch without being a worker."""

from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.model import find

if TYPE_CHECKING:
    from trainers.evaluation.predictor import Predictor


def load(name: str | Path, device: str) -> "Predictor":
    """The model that `name` means, as for `sweep predict`, on a device as torch names it."""
    from trainers.evaluation.predictor import Predictor

    found = find.find(str(name))
    return Predictor(found.path, device=device, extension_folder=found.extensions, remake=found.remake)
