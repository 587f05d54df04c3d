"""A finished model at work: image files in, predictions out; its file is all that is needed."""

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


class Network:
    """A network of a model file on a device."""

    def __init__(self, notes: ModelNotes, weights: dict[str, Tensor], path: Path, data: Data, device: torch.device):
        self.notes, train = notes, notes.computed.train
        self.net = network.restored(train, data.sizes, weights, path).to(device)
        self.lens = Evaluator(train, data, self.net, device)

    def logits(self, data: Data, *, filled: bool) -> np.ndarray:
        """Logits [N, sum C] as it gives them; `filled`: of as many images as usual, some of them twice."""
        self.lens.data, count = data, len(data.table.rows)
        rows = np.resize(np.arange(count), self.lens.batch).tolist() if filled else list(range(count))
        seen: np.ndarray = self.lens.logits(self.net, rows, self.notes.calibration.views).cpu().numpy()[:count]
        return seen


class Predictor:
    """A model file that is loaded on a device: a network, or the mean of several.

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
        """Load the files of Python that define the networks."""
        wanted = self.ensemble.extensions
        if lacking := [name for name in wanted if not (folder / name).is_file()]:
            what = f"{lacking[0]} is not there, which defines the network of this model"
            raise EnvironmentFault(what, where=str(folder), help="copy the folder extensions with the model")
        extensions.use(extensions.stored(folder, wanted))

    @property
    def batch(self) -> int:
        """Images that pass through the networks together; a GPU without room has halved it."""
        return min(one.lens.batch for one in self.networks)

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
        while some := list(islice(waiting, AHEAD // self.batch * self.batch or self.batch)):
            size = self.batch
            chunks = [some[start : start + size] for start in range(0, len(some), size)]
            for piece in prefetch(chunks, self._decoded, self.device):
                yield from self._said(piece, first=first)
                first = False

    def logits(self, data: Data, *, first: bool = True) -> np.ndarray:
        """Logits [N, sum C] of decoded images, corrected; thresholds are not taken off.

        A GPU, which prepares itself for each shape, gets a batch after the `first` filled up.
        """
        return self.ensemble.mean(self._seen(data, first=first))

    def _seen(self, data: Data, *, first: bool) -> list[np.ndarray]:
        """Those of each network, as it gives them."""
        filled = not first and self.device.type != "cpu"
        return [one.logits(data, filled=filled) for one in self.networks]

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
        seen = self._seen(data, first=first)
        logits, judged = self.ensemble.mean(seen), self.ensemble.mean(seen, thresholds=True)
        if not np.isfinite(logits).all():
            raise EnvironmentFault("the model's scores are not numbers", help="retrain it with precision: fp32")
        shares = answers.probabilities(logits, self.categories, self.ensemble.temperature)
        for each, share in zip(judged, shares, strict=True):
            yield answers.predictions(each, share, self.categories)

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
