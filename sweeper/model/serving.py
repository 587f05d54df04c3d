"""The module that MLflow loads: a model file behind its interface, image contents in, answers out, no pickle."""

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sweeper.store.paths import RunFolder

if TYPE_CHECKING:
    from trainers.evaluation.answers import CategoryPrediction, ImagePrediction
    from trainers.evaluation.predictor import Predictor

COLUMN = "image"  # of the input


class Served:
    """A model with MLflow's interface."""

    def __init__(self, model: "Predictor") -> None:
        self._model = model

    def predict(self, model_input: Mapping[str, Sequence[bytes | str]], params: Any = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return each category's answer and probability (lists, if it has several answers) per image.

        Each image is the content of a file. Raises ValueError if one is not an image.
        """
        with TemporaryDirectory() as folder:
            paths = list(_files(Path(folder), model_input[COLUMN]))
            return [_row(found, number) for number, found in enumerate(self._model.predict_all(paths))]


def _files(folder: Path, images: Sequence[bytes | str]) -> Iterator[Path]:
    for number, content in enumerate(images):
        path = folder / str(number)
        path.write_bytes(_plain(content))
        yield path


def _plain(content: bytes | str) -> bytes:
    """Return a file's content, decoded from base64 if MLflow left it so (for `inputs`); no image is valid base64."""
    given = content.encode() if isinstance(content, str) else content
    try:
        return b64decode(b"".join(given.split()), validate=True)
    except ValueError:
        return given


def _row(found: Any, number: int) -> dict[str, Any]:
    if why := getattr(found, "why", ""):
        raise ValueError(f"image {number} {why}")
    read: ImagePrediction = found
    return {name: value for one in read.categories.values() for name, value in _columns(one)}


def _columns(one: "CategoryPrediction") -> Iterator[tuple[str, Any]]:
    shares = [one.probabilities[answer] for answer in one.answers]
    yield one.category, list(one.answers) if one.multi else one.answer
    yield f"{one.category} probability", shares if one.multi else one.probability


def load(path: str) -> Served:
    """Load the model in a folder of data."""
    from trainers.evaluation.predictor import Predictor

    folder = RunFolder(Path(path))
    return Served(Predictor(folder.model, extension_folder=folder.root / "extensions"))


_load_pyfunc = load  # the name that MLflow requires
