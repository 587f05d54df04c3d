"""A finished model at work: image files in, predictions out; its file is all that is needed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from trainers import extensions
from trainers.data.cache import Cache
from trainers.data.decoding import decode_rows
from trainers.data.layouts import widened
from trainers.data.table import Box, Row, Table
from trainers.evaluation import answers, model_file
from trainers.evaluation.answers import CategoryPrediction, ImagePrediction
from trainers.evaluation.predict import Evaluator, logit_offset
from trainers.loading.batches import Data
from trainers.loading.prefetch import prefetch
from trainers.models import network
from trainers.support.checkpoint import load_weights
from trainers.support.device import prepare
from trainers.support.errors import EnvironmentFault, UserError

AHEAD = 1024  # images whose names are taken from the caller at once


@dataclass(frozen=True)
class ImageFile:
    """An image to look at, or what of it lies in a box."""

    path: Path
    box: Box | None = None


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class _Piece:
    """Images that pass through the network together: those of them that can be read are decoded."""

    files: Sequence[ImageFile]
    data: Data
    faults: dict[int, str]


class Predictor:
    """A model file that is loaded on a device.

    With the same images in the same order, batch size, device and number of CPU threads, the logits are bit for bit
    those of a retraining's own predictions. Files of Python that define its network are executed, from
    `extension_folder`. Raises EnvironmentFault for a file that is damaged, or of another version.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        batch_size: int | None = None,
        extension_folder: Path | None = None,
        remake: str = model_file.REMAKE,
    ) -> None:
        self.notes = model_file.read(path, remake)
        if self.notes.extensions:
            self._execute(extension_folder or path.parent / "extensions")
        self.device, recipe = torch.device(device), self.notes.computed
        prepare(self.device)
        self.categories = self.notes.asked
        sizes = [len(category.classes) for category in self.categories]
        self.net = network.restored(recipe.train, sizes, load_weights(path), path).to(self.device)
        self.lens = Evaluator(recipe.train, self._decoded([]).data, self.net, self.device)
        self.lens.batch = batch_size or self.lens.batch

    def _execute(self, folder: Path) -> None:
        """Load the files of Python that define the network."""
        if lacking := [name for name in self.notes.extensions if not (folder / name).is_file()]:
            what = f"{lacking[0]} is not there, which defines the network of this model"
            raise EnvironmentFault(what, where=str(folder), help="copy the folder extensions with the model")
        extensions.use(extensions.stored(folder, self.notes.extensions))

    @property
    def boxed(self) -> bool:
        """Whether it was trained on what lies in boxes."""
        return self.notes.images.crop == "box"

    def predict(self, path: str | Path, box: Box | None = None) -> ImagePrediction:
        """What it says of one image, or of what lies in a box of it: left, top, right, bottom.

        Raises UserError where that is no image.
        """
        (found,) = self.predict_all([ImageFile(Path(path), box)])
        if isinstance(found, Unreadable):
            raise UserError(found.why, where=str(found.path), help="give the path of an image file")
        return found

    def predict_all(self, files: Iterable[str | Path | ImageFile]) -> Iterator[ImagePrediction | Unreadable]:
        """What it says of each image, in order; a batch is decoded while another passes through the network."""
        waiting = (one if isinstance(one, ImageFile) else ImageFile(Path(one)) for one in files)
        first = True
        while some := list(islice(waiting, AHEAD // self.lens.batch * self.lens.batch or self.lens.batch)):
            size = self.lens.batch  # a GPU without room has halved it
            chunks = [some[start : start + size] for start in range(0, len(some), size)]
            for piece in prefetch(chunks, self._decoded, self.device):
                yield from self._said(piece, first=first)
                first = False

    def logits(self, data: Data, *, first: bool = True) -> np.ndarray:
        """Logits [N, sum C] of decoded images, corrected; thresholds are not taken off.

        A GPU, which prepares itself for each shape, gets a batch after the `first` filled up.
        """
        self.lens.data, count = data, len(data.table.rows)
        full = not first and not self.lens.hosted
        rows = np.resize(np.arange(count), self.lens.batch).tolist() if full else list(range(count))
        seen: np.ndarray = self.lens.logits(self.net, rows, self.notes.calibration.views).cpu().numpy()[:count]
        found: np.ndarray = seen - logit_offset(self.categories, self.notes.counts, self.notes.calibration.tau)
        return found

    def _said(self, piece: _Piece, *, first: bool) -> Iterator[ImagePrediction | Unreadable]:
        read = self._predictions(piece.data, first=first)
        for index, file in enumerate(piece.files):
            if why := piece.faults.get(index):
                yield Unreadable(file.path, why)
            else:
                yield ImagePrediction(file.path, {one.category: one for one in next(read)})

    def _predictions(self, data: Data, *, first: bool) -> Iterator[list[CategoryPrediction]]:
        """Those of each image."""
        if not data.table.rows:
            return
        logits = self.logits(data, first=first)
        if not np.isfinite(logits).all():
            raise EnvironmentFault("the model's scores are not numbers", help="retrain it with precision: fp32")
        shares = answers.probabilities(logits, self.categories, self.notes.calibration.temperature)
        for judged, share in zip(logits - self._moved, shares, strict=True):
            yield answers.predictions(judged, share, self.categories)

    @property
    def _moved(self) -> np.ndarray:
        """What thresholds take off, [sum C]."""
        return logit_offset(self.categories, self.notes.counts, 0.0, self.notes.calibration.thresholds)

    def _decoded(self, files: Sequence[ImageFile]) -> _Piece:
        """As the cache of a study would have them."""
        rows = tuple(self._row(file) for file in files)
        table = Table(Path(), self.categories, rows)
        (images, half), faults = decode_rows(table, self.notes.format)
        kept = tuple(row for index, row in enumerate(rows) if index not in faults)
        sizes = np.zeros((len(kept), 2), np.int32)  # for augmentations alone
        cache = Cache(max(self.notes.images.decoded), images, half, sizes)
        return _Piece(files, Data(Table(Path(), self.categories, kept), cache), faults)

    def _row(self, file: ImageFile) -> Row:
        box = file.box and widened(file.box, self.notes.images.box_margin)
        return Row(str(file.path), "test", box if self.boxed else None, None, str(file.path))
