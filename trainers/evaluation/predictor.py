"""Predictions of a finished model: image files in, predictions out; the model file is all that is needed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers import extensions
from trainers.data.cache import Cache
from trainers.data.decoding import decode_rows
from trainers.data.layouts import widened
from trainers.data.table import Box, Row, Table
from trainers.evaluation import answers, model_file
from trainers.evaluation.answers import CategoryPrediction, ImagePrediction
from trainers.evaluation.model_file import ModelNotes
from trainers.evaluation.predict import Evaluator
from trainers.loading.batches import Data
from trainers.loading.prefetch import prefetch
from trainers.models import network
from trainers.support.device import prepare
from trainers.support.errors import EnvironmentFault, UserError

AHEAD = 1024  # image names taken from the caller at once


@dataclass(frozen=True)
class ImageFile:
    """An image to predict, or the part of it inside a box."""

    path: Path
    box: Box | None = None


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read, with the reason."""

    path: Path
    why: str


@dataclass(frozen=True)
class _Piece:
    """Images that pass through the network together, decoded if they can be read."""

    files: Sequence[ImageFile]
    data: Data
    faults: dict[int, str]


class Network:
    """One network of a model file, on a device."""

    def __init__(self, notes: ModelNotes, weights: dict[str, Tensor], path: Path, data: Data, device: torch.device):
        self.notes, train = notes, notes.computed.train
        self.net = network.restored(train, data.sizes, weights, path).to(device)
        self.lens = Evaluator(train, data, self.net, device)

    def logits(self, data: Data, *, filled: bool) -> np.ndarray:
        """Return the raw logits [N, sum C]; `filled`: images are repeated to fill up the usual batch."""
        self.lens.data, count = data, len(data.table.rows)
        rows = np.resize(np.arange(count), self.lens.batch).tolist() if filled else list(range(count))
        seen: np.ndarray = self.lens.logits(self.net, rows, self.notes.calibration.views).cpu().numpy()[:count]
        return seen


class Predictor:
    """A model file loaded on a device: one network, or the mean of several.

    With the same images in the same order, batch size, device and number of CPU threads, the logits are bit for bit
    those of the retraining's own predictions. Python files that define its network are executed, from
    `extension_folder`. Raises EnvironmentFault for a file that is damaged or of another version.
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
        self.ensemble = model_file.read(path, remake)
        if self.ensemble.extensions:
            self._execute(extension_folder or path.parent / "extensions")
        self.device = torch.device(device)
        prepare(self.device)
        self.notes, self.categories = self.ensemble.first, self.ensemble.first.asked
        parts, nothing = model_file.weights(path, self.ensemble), self._decoded([]).data
        pairs = zip(self.ensemble.members, parts, strict=True)
        self.networks = [Network(one.notes, part, path, nothing, self.device) for one, part in pairs]
        for one in self.networks:
            one.lens.batch = batch_size or one.lens.batch

    def _execute(self, folder: Path) -> None:
        """Load the Python files that define the networks."""
        wanted = self.ensemble.extensions
        if lacking := [name for name in wanted if not (folder / name).is_file()]:
            what = f"{lacking[0]}, which defines the network of this model, is missing"
            raise EnvironmentFault(what, where=str(folder), help="copy the folder extensions with the model")
        extensions.use(extensions.stored(folder, wanted))

    @property
    def batch(self) -> int:
        """The number of images that pass through the networks together; halved when a GPU ran out of memory."""
        return min(one.lens.batch for one in self.networks)

    @property
    def boxed(self) -> bool:
        """True if the model was trained on images cropped to boxes."""
        return self.notes.images.crop == "box"

    def predict(self, path: str | Path, box: Box | None = None) -> ImagePrediction:
        """Predict one image, or the part of it inside a box: left, top, right, bottom.

        Raises UserError if it is not an image.
        """
        (found,) = self.predict_all([ImageFile(Path(path), box)])
        if isinstance(found, Unreadable):
            raise UserError(found.why, where=str(found.path), help="give the path of an image file")
        return found

    def predict_all(self, files: Iterable[str | Path | ImageFile]) -> Iterator[ImagePrediction | Unreadable]:
        """Predict each image, in order; one batch is decoded while another passes through the network."""
        waiting = (one if isinstance(one, ImageFile) else ImageFile(Path(one)) for one in files)
        first = True
        while some := list(islice(waiting, AHEAD // self.batch * self.batch or self.batch)):
            size = self.batch
            chunks = [some[start : start + size] for start in range(0, len(some), size)]
            for piece in prefetch(chunks, self._decoded, self.device):
                yield from self._predicted(piece, first=first)
                first = False

    def logits(self, data: Data, *, first: bool = True) -> np.ndarray:
        """Return the corrected logits [N, sum C] of decoded images, without subtracting thresholds.

        On a GPU, which prepares for each new shape, every batch after the `first` is filled up.
        """
        return self.ensemble.mean(self._seen(data, first=first))

    def _seen(self, data: Data, *, first: bool) -> list[np.ndarray]:
        """Return the raw logits of each network."""
        filled = not first and self.device.type != "cpu"
        return [one.logits(data, filled=filled) for one in self.networks]

    def _predicted(self, piece: _Piece, *, first: bool) -> Iterator[ImagePrediction | Unreadable]:
        read = self._predictions(piece.data, first=first)
        for index, file in enumerate(piece.files):
            if why := piece.faults.get(index):
                yield Unreadable(file.path, why)
            else:
                yield ImagePrediction(file.path, {one.category: one for one in next(read)})

    def _predictions(self, data: Data, *, first: bool) -> Iterator[list[CategoryPrediction]]:
        """Yield the predictions for each image."""
        if not data.table.rows:
            return
        seen = self._seen(data, first=first)
        logits, judged = self.ensemble.mean(seen), self.ensemble.mean(seen, thresholds=True)
        if not np.isfinite(logits).all():
            raise EnvironmentFault("the model's scores are not finite", help="retrain it with precision: fp32")
        shares = answers.probabilities(logits, self.categories, self.ensemble.temperature)
        for each, share in zip(judged, shares, strict=True):
            yield answers.predictions(each, share, self.categories)

    def _decoded(self, files: Sequence[ImageFile]) -> _Piece:
        """Decode images as the cache of a study would hold them."""
        rows = tuple(self._row(file) for file in files)
        table = Table(Path(), self.categories, rows)
        (images, half), faults = decode_rows(table, self.notes.format)
        kept = tuple(row for index, row in enumerate(rows) if index not in faults)
        sizes = np.zeros((len(kept), 2), np.int32)  # only augmentations use them
        cache = Cache(max(self.notes.images.decoded), images, half, sizes)
        return _Piece(files, Data(Table(Path(), self.categories, kept), cache), faults)

    def _row(self, file: ImageFile) -> Row:
        box = file.box and widened(file.box, self.notes.images.box_margin)
        return Row(str(file.path), "test", box if self.boxed else None, None, str(file.path))
