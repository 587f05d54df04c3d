"""The notes in a model file: everything that prediction needs besides the weights, as JSON in its metadata."""

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
    """The steps from a network's logits to answers and probabilities."""

    views: Views = Field(default_factory=Views, description="views of each image, over which the logits are averaged")
    tau: float = Field(0.0, description="strength of the correction by class frequency")
    thresholds: dict[str, tuple[float, ...]] | None = Field(
        None, description="probability above which a class is an answer, by category with several; else 0.5"
    )
    temperature: dict[str, float] = Field(
        default_factory=dict, description="divisor of corrected logits, by category; else 1"
    )


class CategoryNotes(Frozen):
    """One category of the model."""

    name: str
    classes: tuple[str, ...] = Field(description="in the order of the logits")
    multi: bool = Field(description="an image may have several of the classes")
    images: tuple[int, ...] = Field(description="training images of each class")


class ImageNotes(Frozen):
    """The steps from a file to an input: decoded to one size, as in the cache of a study, then resized to another."""

    decoded: tuple[int, int] = Field(description="height and width of decoded images")
    stored: Literal["raw", "jpeg"] = Field(description="jpeg: decoded images pass through JPEG of quality 95")
    input: tuple[int, int] = Field(description="height and width of the network's input")
    fit: Fit = Field(description="treatment of other aspect ratios: squash, pad or center")
    crop: str = Field(description="box: images are first cropped to a box; else none")
    box_margin: float = Field(description="margin kept around the box, as a share of its longer side")
    mean: tuple[float, ...] = Field(description="mean of the input channels, on a scale of 0 to 1")
    std: tuple[float, ...] = Field(description="standard deviation of the input channels, on a scale of 0 to 1")


class ModelNotes(Frozen):
    """The notes of a model file."""

    version: int = VERSION
    recipe: Recipe = Field(description="recipe of the training, without paths of that machine")
    full_precision: bool = Field(description="trained in 32 bits, whatever the recipe says")
    epoch: Epoch = Field(description="the epoch that these weights are from")
    metric: str
    fitted_on: tuple[str, ...] = Field(description="splits that the model was fitted on")
    categories: tuple[CategoryNotes, ...]
    images: ImageNotes
    calibration: Calibration
    extensions: dict[str, str] = Field(
        description="SHA-256 of the Python files that define its network, by name; they are stored beside it"
    )
    weights_license: str | None = Field(
        description="license of the published weights that it started from, according to timm"
    )
    versions: dict[str, str] = Field(description="versions of the libraries that trained it")

    @property
    def computed(self) -> Recipe:
        """The recipe by which the network is computed, with its normalization and precision."""
        recipe = self.recipe.in_full if self.full_precision else self.recipe
        normalize = Normalize.model_validate({"mean": self.images.mean, "std": self.images.std})
        return recipe.model_copy(update={"train": recipe.train.model_copy(update={"normalize": normalize})})

    @property
    def asked(self) -> tuple[Category, ...]:
        """The categories as a table holds them."""
        return tuple(Category(one.name, one.classes, one.multi) for one in self.categories)

    @property
    def counts(self) -> list[Sequence[int]]:
        """The training images of each class, [K][C]."""
        return [one.images for one in self.categories]

    @property
    def preparation(self) -> tuple[object, ...]:
        """An image's preparation before it is resized to a network's input; ensemble members must agree on it."""
        one = self.images
        return one.decoded, one.stored, one.fit, one.crop, one.box_margin, self.asked

    @property
    def format(self) -> ImageFormat:
        """The format to which images are decoded."""
        height, width = self.images.decoded
        return ImageFormat(height, width, self.images.stored, self.recipe.train.framing)


class Member(Frozen):
    """A network of a model file and its share of the mean; its logits are corrected and divided by temperatures."""

    notes: ModelNotes
    share: float = Field(1.0, gt=0, le=1, description="share of the mean over all networks")
    temperature: dict[str, float] = Field(
        default_factory=dict, description="divisor of its logits before the mean, by category; else 1"
    )

    @property
    def divisor(self) -> np.ndarray:
        """The temperature of each class, [sum C] float32."""
        return divisors(self.notes.asked, self.temperature).astype(np.float32)

    def judged(self, logits: np.ndarray, *, thresholds: bool) -> np.ndarray:
        """Return the network's logits [N, sum C] as they enter the mean: corrected, and less the thresholds."""
        notes, fitted = self.notes, self.notes.calibration
        taken = fitted.thresholds if thresholds else None
        found: np.ndarray = (logits - logit_offset(notes.asked, notes.counts, fitted.tau, taken)) / self.divisor
        return found


class EnsembleNotes(Frozen):
    """The notes of a model file with one or several networks.

    With several, the tensor names of network k, from 0, are those of its own file with the prefix `k.`.
    """

    version: int = VERSION
    members: tuple[Member, ...] = Field(min_length=1)
    temperature: dict[str, float] = Field(
        default_factory=dict, description="divisor of the mean of their logits, by category; else 1"
    )

    @property
    def first(self) -> ModelNotes:
        """The notes of the first network: categories and the preparation of images are the same for all."""
        return self.members[0].notes

    @property
    def extensions(self) -> dict[str, str]:
        """SHA-256 of the Python files that define the networks, by name."""
        return {name: digest for one in self.members for name, digest in one.notes.extensions.items()}

    def mean(self, logits: Sequence[np.ndarray], *, thresholds: bool = False) -> np.ndarray:
        """Return the mean of the networks' logits, corrected and less the thresholds, [N, sum C] float32.

        The mean of a single network is its own logits, bit for bit.
        """
        pairs = zip(self.members, logits, strict=True)
        parts = [np.float32(one.share) * one.judged(own, thresholds=thresholds) for one, own in pairs]
        found: np.ndarray = np.sum(parts, axis=0)
        return found


def combined(
    members: Sequence[tuple[Path, float, Mapping[str, float]]], temperature: Mapping[str, float], to: Path
) -> None:
    """Combine model files, each given by path, share and temperatures, into one with temperatures of the mean.

    Raises ValueError if one is itself an ensemble, or prepares images differently from the first.
    """
    found, tensors = [], dict[str, Tensor]()
    for number, (path, share, heat) in enumerate(members):
        (alone,) = read(path).members
        found.append(Member(notes=alone.notes, share=share, temperature=dict(heat)))
        tensors |= {f"{number}.{name}": tensor for name, tensor in load_weights(path).items()}
    notes = EnsembleNotes(members=tuple(found), temperature=dict(temperature))
    if any(one.notes.preparation != notes.first.preparation for one in found):
        raise ValueError(
            f"the networks of {', '.join(str(path) for path, *_ in members)} need images prepared in different ways"
        )
    save_weights(to, tensors, notes.model_dump(mode="json"))


def weights(path: Path, notes: EnsembleNotes) -> list[dict[str, Tensor]]:
    """Return the tensors of each network of a model file."""
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
    """Return the notes of a network fitted on `data`; counts [K][C] are the images of each class."""
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
    """True if extension files define part of the network; a finished model needs no losses or augmentations."""
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
    """Return the notes of a model file, also of one with a single network.

    Raises EnvironmentFault, with `remake` as its help, if the file is damaged or of another version.
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
