"""What a model file says of its model beside the weights: all that predicting needs, in its metadata as JSON."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError
from torch import Tensor

from trainers import extensions
from trainers.config import CustomHead, Normalize, Recipe, Views
from trainers.data.decoded_files import ImageFormat, JpegImages
from trainers.data.table import Category
from trainers.data_config import Fit
from trainers.epoch import Epoch, Frozen
from trainers.evaluation.answers import divisors, logit_offset
from trainers.loading.batches import Data
from trainers.models import network
from trainers.support.checkpoint import load_weights, read_notes, save_weights
from trainers.support.errors import EnvironmentFault

VERSION = 2
REMAKE = "sweep best STUDY --export submission --again trains a new one"
LIBRARIES = ("torch", "timm", "pillow")


class Calibration(Frozen):
    """What is done to a network's logits before they are answers and probabilities."""

    views: Views = Field(default_factory=Views, description="what of an image is looked at; the mean of the logits")
    tau: float = Field(0.0, description="strength of the correction by class frequency")
    thresholds: dict[str, tuple[float, ...]] | None = Field(
        None, description="probability from which on a class is an answer, by category with several; else 0.5"
    )
    temperature: dict[str, float] = Field(
        default_factory=dict, description="by what corrected logits are divided, by category; else 1"
    )


class CategoryNotes(Frozen):
    """A category of the model."""

    name: str
    classes: tuple[str, ...] = Field(description="in the order of the logits")
    multi: bool = Field(description="an image may have several of them")
    images: tuple[int, ...] = Field(description="training images of each class")


class ImageNotes(Frozen):
    """How a file becomes an input: decoded to one size, as the cache of a study has it, and resized to another."""

    decoded: tuple[int, int] = Field(description="height and width to which images are decoded")
    stored: Literal["raw", "jpeg"] = Field(description="jpeg: decoded images pass through JPEG of quality 95")
    input: tuple[int, int] = Field(description="height and width of the network's input")
    fit: Fit = Field(description="what becomes of another aspect: squash, pad or center")
    crop: str = Field(description="box: images are cut to a box first; else none")
    box_margin: float = Field(description="kept around the box, as a share of its longer side")
    mean: tuple[float, ...] = Field(description="of the input channels, on the scale 0..1")
    std: tuple[float, ...] = Field(description="of the input channels, on the scale 0..1")


class ModelNotes(Frozen):
    """The notes of a model file."""

    version: int = VERSION
    recipe: Recipe = Field(description="as the model was trained, without the paths of that machine")
    full_precision: bool = Field(description="32 bits whatever the recipe says")
    epoch: Epoch = Field(description="the one after which these were the weights")
    metric: str
    fitted_on: tuple[str, ...] = Field(description="splits")
    categories: tuple[CategoryNotes, ...]
    images: ImageNotes
    calibration: Calibration
    extensions: dict[str, str] = Field(
        description="SHA-256 of the files of Python that define its network, by name; they lie beside it"
    )
    weights_license: str | None = Field(description="of the published weights it started from, as timm tells it")
    versions: dict[str, str] = Field(description="of the libraries that trained it")

    @property
    def computed(self) -> Recipe:
        """The recipe as the network is to be computed, normalization included."""
        recipe = self.recipe.in_full if self.full_precision else self.recipe
        normalize = Normalize.model_validate({"mean": self.images.mean, "std": self.images.std})
        return recipe.model_copy(update={"train": recipe.train.model_copy(update={"normalize": normalize})})

    @property
    def asked(self) -> tuple[Category, ...]:
        """The categories as a table has them."""
        return tuple(Category(one.name, one.classes, one.multi) for one in self.categories)

    @property
    def counts(self) -> list[Sequence[int]]:
        """Training images of each class, [K][C]."""
        return [one.images for one in self.categories]

    @property
    def preparation(self) -> tuple[object, ...]:
        """What an image goes through before networks with inputs of various sizes look at it."""
        one = self.images
        return one.decoded, one.stored, one.fit, one.crop, one.box_margin, self.asked

    @property
    def format(self) -> ImageFormat:
        """How images are decoded."""
        height, width = self.images.decoded
        return ImageFormat(height, width, self.images.stored, self.recipe.train.framing)


class Member(Frozen):
    """A network of a model file, whose logits count by its share: corrected, and divided by their temperatures."""

    notes: ModelNotes
    share: float = Field(1.0, gt=0, le=1, description="of the mean over all networks")
    temperature: dict[str, float] = Field(
        default_factory=dict, description="by what its logits are divided before the mean, by category; else 1"
    )

    @property
    def divisor(self) -> np.ndarray:
        """The same for each class, [sum C] float32."""
        return divisors(self.notes.asked, self.temperature).astype(np.float32)

    def judged(self, logits: np.ndarray, *, thresholds: bool) -> np.ndarray:
        """Logits [N, sum C] of the network as they count among the others: corrected, and less the thresholds."""
        notes, fitted = self.notes, self.notes.calibration
        taken = fitted.thresholds if thresholds else None
        found: np.ndarray = (logits - logit_offset(notes.asked, notes.counts, fitted.tau, taken)) / self.divisor
        return found


class EnsembleNotes(Frozen):
    """The notes of a model file with its networks, of which there are several or one.

    Of several the tensors of network k, from 0, have `k.` before the names of its own file.
    """

    version: int = VERSION
    members: tuple[Member, ...] = Field(min_length=1)
    temperature: dict[str, float] = Field(
        default_factory=dict, description="by what the mean of their logits is divided, by category; else 1"
    )

    @property
    def first(self) -> ModelNotes:
        """Those of the first network: categories and the preparation of images are the same for all."""
        return self.members[0].notes

    @property
    def extensions(self) -> dict[str, str]:
        """SHA-256 of the files of Python that define the networks, by name."""
        return {name: digest for one in self.members for name, digest in one.notes.extensions.items()}

    def mean(self, logits: Sequence[np.ndarray], *, thresholds: bool = False) -> np.ndarray:
        """What the networks' logits come to, [N, sum C] float32: their mean, corrected, and less the thresholds.

        That of one network alone is its own, bit for bit.
        """
        pairs = zip(self.members, logits, strict=True)
        parts = [np.float32(one.share) * one.judged(own, thresholds=thresholds) for one, own in pairs]
        found: np.ndarray = np.sum(parts, axis=0)
        return found


def combined(
    members: Sequence[tuple[Path, float, Mapping[str, float]]], temperature: Mapping[str, float], to: Path
) -> None:
    """Put the networks of several model files into one: path, share and temperatures of each, and that of the mean.

    Raises ValueError where one is an ensemble itself, or images are prepared otherwise for it than for the first.
    """
    found, tensors = [], dict[str, Tensor]()
    for number, (path, share, heat) in enumerate(members):
        (alone,) = read(path).members
        found.append(Member(notes=alone.notes, share=share, temperature=dict(heat)))
        tensors |= {f"{number}.{name}": tensor for name, tensor in load_weights(path).items()}
    notes = EnsembleNotes(members=tuple(found), temperature=dict(temperature))
    if any(one.notes.preparation != notes.first.preparation for one in found):
        raise ValueError(
            f"the networks of {', '.join(str(path) for path, *_ in members)} want images of several kinds"
        )
    save_weights(to, tensors, notes.model_dump(mode="json"))


def weights(path: Path, notes: EnsembleNotes) -> list[dict[str, Tensor]]:
    """The tensors of each network of a model file."""
    tensors = load_weights(path)
    if len(notes.members) == 1:
        return [tensors]
    found: list[dict[str, Tensor]] = [{} for _ in notes.members]
    for name, tensor in tensors.items():
        number, _, own = name.partition(".")
        found[int(number)][own] = tensor
    return found


def written(
    recipe: Recipe,
    data: Data,
    net: network.Network,
    epoch: Epoch,
    counts: Sequence[Sequence[int]],
    calibration: Calibration,
    *,
    fitted_on: Sequence[str],
    full_precision: bool,
) -> dict[str, Any]:
    """The notes of a network that was fitted on `data`, counts [K][C] images of each class."""
    pairs = zip(data.categories, counts, strict=True)
    mean, std = network.normalization(recipe.train, net)
    notes = ModelNotes(
        recipe=recipe.elsewhere,
        full_precision=full_precision,
        epoch=epoch,
        metric=recipe.metric,
        fitted_on=tuple(fitted_on),
        categories=tuple(CategoryNotes(name=c.name, classes=c.classes, multi=c.multi, images=n) for c, n in pairs),
        images=ImageNotes(
            decoded=data.cache.images.shape[1:3],
            stored="jpeg" if isinstance(data.cache.images, JpegImages) else "raw",
            input=recipe.train.input_size,
            fit=recipe.train.fit,
            crop=recipe.data.crop,
            box_margin=recipe.data.box_margin,
            mean=mean,
            std=std,
        ),
        calibration=calibration,
        extensions=recipe.extensions if _own(recipe) else {},
        weights_license=_license(recipe, net),
        versions=_versions(),
    )
    return notes.model_dump(mode="json")


def _own(recipe: Recipe) -> bool:
    """Whether extension files define a part of the network; of losses and augmentations a finished model has none."""
    return isinstance(recipe.train.head, CustomHead) or bool(extensions.find("models", recipe.train.backbone))


def _license(recipe: Recipe, net: network.Network) -> str | None:
    about: Mapping[str, Any] = getattr(net.backbone, "pretrained_cfg", None) or {}
    published = recipe.train.pretrained and not recipe.train.weights
    return str(about.get("license") or "unknown") if published else None


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    own = metadata.packages_distributions().get("trainers", [])
    return {name: metadata.version(name) for name in (*own, *LIBRARIES)}


def read(path: Path, remake: str = REMAKE) -> EnsembleNotes:
    """The notes of a model file, whose network may be one alone. Raises EnvironmentFault where it is damaged, or of
    another version.

    `remake` is what to do then.
    """
    notes = read_notes(path)
    if (version := notes.get("version", 1)) != VERSION:
        how = "an older" if version < VERSION else "a newer"
        what = f"this model was saved by {how} version of sweep (file version {version}, not {VERSION})"
        raise EnvironmentFault(what, where=str(path), help=remake)
    try:
        if "members" in notes:
            return EnsembleNotes.model_validate(notes)
        alone = ModelNotes.model_validate(notes)
        return EnsembleNotes(members=(Member(notes=alone),), temperature=alone.calibration.temperature)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"its notes cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise EnvironmentFault(what, where=str(path), help=remake) from error
