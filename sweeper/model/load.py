"""Load a model in this process, for Python: the only place outside the workers that loads torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.model import find

if TYPE_CHECKING:
    from trainers.evaluation.predictor import Predictor


def load(name: str | Path, device: str) -> "Predictor":
    """Load the model that `name` means for `sweep predict`, on a device named as in torch."""
    from trainers.evaluation.predictor import Predictor

    found = find.find(str(name))
    return Predictor(found.path, device=device, extension_folder=found.extensions, remake=found.remake)
