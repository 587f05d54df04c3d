"""The recipe of one training run. Importing this loads no torch."""

import math
from collections.abc import Callable, Mapping
from operator import not_
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from trainers.data_config import DataConfig, Fit, Framing, Place
from trainers.epoch import Epoch, Part
from trainers.metrics.definitions import BUILT_IN, SELECTIONS, STANDARD, minimizes, oriented

JUDGED = "the metric on val by which epochs and trials are ranked. " + "; ".join(
    f"{name}: {one.description}" for name, one in BUILT_IN.items()
)
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Window = Annotated[float, Field(gt=0, le=1)]
Pixels = Annotated[int, Field(ge=16, le=2048)]
MAX_MAGNITUDE = 30  # of RandAugment, as in torchvision
GRAIN = 16  # pixels: the sides of progressive resizing are multiples of it


CUSTOM = "custom"
"""The tag of a part from an extension file. Reading the search space checks that a file defines it."""


def known_or_custom(*known: str) -> Callable[[Any], str | None]:
    """Return the discriminator of a union: it maps a built-in part to its name, and any other name to CUSTOM."""

    def tag(value: Any) -> str | None:
        name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
        return name if name in known else CUSTOM if isinstance(name, str) else None

    return tag


def other_than(*known: str) -> Any:
    """Return the field for a name that no built-in part has."""
    return Field(description="its name in the extension file", json_schema_extra={"not": {"enum": list(known)}})


LOSSES = ("cross_entropy", "focal", "asymmetric", "dice", "logit_adjusted")
HEADS = ("linear", "relu_logits", "logits_mlp", "category_mlp", "shared_mlp", "query2label")


# ---------------------------------------------------------------------------------------------- loss
ClassWeights = Literal["none", "inverse_frequency", "effective_number"]


class LossPart(Part):
    """The keys of every loss."""

    category_weights: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="factor of each category's loss, by category name; 1 for a category left out"
    )
    class_weights: ClassWeights = Field(
        "none", description="weight of each class within its category, from the training counts; the mean is 1"
    )
    beta: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="effective_number only: 0 weights all classes equally, values near 1 by inverse frequency",
    )
    category_reduction: Literal["mean", "sum"] = Field("mean", description="how the categories' losses are combined")


class CrossEntropy(LossPart):
    """Cross entropy, one softmax per category."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over all classes")


class Focal(LossPart):
    """Focal loss (Lin et al. 2017), one softmax per category."""

    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, description="focusing exponent; 0 is cross entropy")


class Asymmetric(LossPart):
    """Asymmetric loss (Ridnik et al. 2021): classes that an image lacks count less than the one it has."""

    name: Literal["asymmetric"] = "asymmetric"
    over: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="probabilities from one softmax per category, or from one sigmoid per class"
    )
    gamma_positive: float = Field(1.0, ge=0, description="focusing exponent of the class that an image has")
    gamma_negative: float = Field(4.0, ge=0, description="focusing exponent of the classes that it lacks")
    margin: float = Field(0.05, ge=0, lt=1, description="probability below which an absent class costs nothing")


class Dice(LossPart):
    """Dice loss (Milletari et al. 2016) of each image's softmax against its label."""

    name: Literal["dice"] = "dice"
    smooth: float = Field(1.0, ge=0, description="added to numerator and denominator; larger values soften the loss")


class LogitAdjusted(LossPart):
    """Cross entropy of logits + tau log(prior) (Menon et al. 2021): rare classes need a larger lead."""

    name: Literal["logit_adjusted"] = "logit_adjusted"
    tau: float = Field(1.0, ge=0, description="strength of the adjustment; 0 is cross entropy")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over all classes")


class CustomLoss(LossPart):
    """A loss from an extension file, with keys of its own."""

    model_config = ConfigDict(extra="allow")

    name: str = other_than(*LOSSES)


Loss = Annotated[
    Annotated[CrossEntropy, Tag("cross_entropy")]
    | Annotated[Focal, Tag("focal")]
    | Annotated[Asymmetric, Tag("asymmetric")]
    | Annotated[Dice, Tag("dice")]
    | Annotated[LogitAdjusted, Tag("logit_adjusted")]
    | Annotated[CustomLoss, Tag(CUSTOM)],
    Discriminator(known_or_custom(*LOSSES)),
]


# ---------------------------------------------------------------------------------------- optimizer
class _Optimizer(Part):
    lr: Positive = Field(description="peak learning rate of the head; the backbone's is this times backbone_lr_scale")
    backbone_lr_scale: float = Field(
        1.0,
        ge=1e-3,
        le=1,
        description="learning rate of the backbone as a multiple of lr; to freeze it, use freeze.epochs",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="learning rate of each backbone layer as a share of that of the layer above it (Clark et al."
        " 2020); the layers are timm's",
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    decay_norm_and_bias: bool = Field(
        False, description="also decay biases, scales of norms and parameters that timm exempts"
    )


class AdamW(_Optimizer):
    """AdamW (Loshchilov and Hutter 2019): decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    lr: Positive = Field(1e-3, description="peak learning rate")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay rates of the two moment estimates")


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2015): weight decay, if any, is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: Positive = Field(1e-3, description="peak learning rate")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay rates of the two moment estimates")


class SGD(_Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = Field(0.1, description="peak learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum; 0 is plain gradient descent")
    nesterov: bool = Field(False, description="use Nesterov momentum; needs a momentum above 0")


Optimizer = Annotated[AdamW | Adam | SGD, Field(discriminator="name")]


# ----------------------------------------------------------------------------------------- schedule
class _Schedule(Part):
    warmup_epochs: float = Field(0, ge=0, description="epochs of linear warmup, from near 0 to the peak")


class Constant(_Schedule):
    """The peak learning rate throughout."""

    name: Literal["constant"] = "constant"


class Step(_Schedule):
    """The learning rate is multiplied by `factor` every `every` epochs."""

    name: Literal["step"] = "step"
    every: int = Field(2, ge=1, description="epochs between steps")
    factor: float = Field(0.8, gt=0, le=1, description="factor by which the rate is multiplied")


class Cosine(_Schedule):
    """Half a cosine from the peak to `min_lr_ratio` (Loshchilov and Hutter 2017), without restarts."""

    name: Literal["cosine"] = "cosine"
    min_lr_ratio: float = Field(0.0, ge=0, lt=1, description="final rate as a share of the peak")


class Plateau(_Schedule):
    """The learning rate is multiplied by `factor` if the metric on val stagnates for over `patience` epochs."""

    name: Literal["plateau"] = "plateau"
    patience: int = Field(5, ge=0, description="epochs without improvement of the metric that are tolerated")
    factor: float = Field(0.1, gt=0, lt=1, description="factor by which the rate is multiplied")


class OneCycle(Part):
    """One rise and one fall (Smith and Topin 2018), each along half a cosine."""

    name: Literal["one_cycle"] = "one_cycle"
    pct_start: float = Field(0.3, gt=0, lt=1, description="share of the steps spent rising")
    start: float = Field(0.04, gt=0, le=1, description="initial rate as a share of the peak")
    min_lr_ratio: float = Field(1e-4, ge=0, lt=1, description="final rate as a share of the peak")


Schedule = Annotated[Constant | Step | Cosine | Plateau | OneCycle, Field(discriminator="name")]


# ------------------------------------------------------------------------------------------ augment
class RandomResizedCrop(Part):
    """A crop of random area and aspect ratio (Szegedy et al. 2015)."""

    scale: tuple[Window, Window] = Field(
        (0.35, 1.0), description="smallest and largest area of the crop, as shares of the image's area"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "RandomResizedCrop":
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale is the smallest area, then the largest: swap them")
        return self


class ColorJitter(Part):
    """Random changes of brightness, contrast, saturation and hue, in this order."""

    brightness: Share = Field(0.0, description="largest change of brightness: a factor of 1 ± this")
    contrast: Share = Field(0.0, description="largest change of contrast: a factor of 1 ± this")
    saturation: Share = Field(0.0, description="largest change of saturation: a factor of 1 ± this")
    hue: float = Field(
        0.0, ge=0, le=0.5, description="largest shift of the hue in either direction, as a share of the colour circle"
    )


class RandAugment(Part):
    """A few random changes of geometry and colour, all of the same strength (Cubuk et al. 2020)."""

    num_ops: int = Field(2, ge=1, le=8, description="changes per image")
    magnitude: float = Field(9.0, ge=0, le=MAX_MAGNITUDE, description="strength, at most 30")


class Augment(Part):
    """Random changes to the training images, drawn for each image from the run's seed. Evaluation applies none.

    Those from an extension file go beside the built-in ones, with their own keys: `my_change: {strength: 0.5}`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any] | None]

    horizontal_flip: Share = Field(0.5, description="probability of a horizontal flip")
    random_resized_crop: RandomResizedCrop | None = Field(
        None, description="a crop of random area and aspect ratio; null is off, {} uses the default scale"
    )
    random_shift: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of each side that a window at a random position leaves out; it also makes a"
        " random_resized_crop smaller",
    )
    rotation: float = Field(0.0, ge=0, le=180, description="largest rotation in either direction, in degrees")
    color_jitter: ColorJitter = Field(default_factory=ColorJitter, description="random changes of colour")
    trivial_augment: bool = Field(
        False,
        description="one random change of geometry or colour, of random strength (Mueller and Hutter 2021)",
    )
    rand_augment: RandAugment | None = Field(
        None,
        description="random changes of geometry and colour, all of one strength; null is off, {} uses the defaults",
    )
    noise: Share = Field(0.0, description="share of the images that receive Gaussian noise")
    noise_std: float = Field(0.1, gt=0, le=1, description="standard deviation of the noise, on a scale of 0 to 1")
    random_erasing: Share = Field(0.0, description="probability of erasing one rectangle (Zhong et al. 2020)")
    mixup: float = Field(0.0, ge=0, description="MixUp (Zhang et al. 2018): alpha of the Beta distribution; 0 is off")
    mixup_classes: Literal["all", "minority"] = Field(
        "all",
        description="images that MixUp changes: all, or (minority) those with a class that has fewer training images"
        " than the average class, each mixed with any image",
    )
    cutmix: float = Field(0.0, ge=0, description="CutMix (Yun et al. 2019): alpha of the Beta distribution; 0 is off")

    @property
    def custom(self) -> dict[str, dict[str, Any]]:
        """The keys of the augmentations from extension files, by name, in their order."""
        return {name: keys for name, keys in (self.model_extra or {}).items() if keys is not None}

    @property
    def smallest_window(self) -> float:
        """The side of the smallest window that training can show, as a share of the image's side."""
        area = self.random_resized_crop.scale[0] if self.random_resized_crop else 1.0
        return (1 - self.random_shift) * math.sqrt(area)


# -------------------------------------------------------------------------------------------- train
class LinearHead(Part):
    """Pooled features, dropout, then one linear layer per category."""

    name: Literal["linear"] = "linear"
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the linear layers")


class ReluLogits(Part):
    """The backbone's own class scores (1000 for ImageNet), then ReLU and one linear layer per category."""

    name: Literal["relu_logits"] = "relu_logits"


class LogitsMLP(Part):
    """The backbone's own class scores, hidden layers with ReLU, then dropout and one linear layer per category."""

    name: Literal["logits_mlp"] = "logits_mlp"
    layers: int = Field(
        2, ge=0, le=4, description="number of hidden layers; their widths are the first of 512, 256, 128, 64"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout before the last linear layers")


class CategoryMLP(Part):
    """Batch norm, then one branch per category: linear, batch norm, ReLU, dropout, linear."""

    name: Literal["category_mlp"] = "category_mlp"
    hidden: int = Field(512, ge=1, description="width of each category's hidden layer")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout before the last linear layer")


class SharedMLP(Part):
    """Hidden layers shared by all categories (linear, ReLU, dropout), then one linear layer per category."""

    name: Literal["shared_mlp"] = "shared_mlp"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((100, 200, 100), description="width of each hidden layer")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout between the hidden layers")


class Query2Label(Part):
    """One learned query per category attends to the feature map (Liu et al. 2021), by cross-attention only."""

    name: Literal["query2label"] = "query2label"
    width: int = Field(768, ge=4, multiple_of=4, description="features of the queries and the map")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    feed_forward: int = Field(3072, ge=1, description="hidden features of the feed-forward layers")
    encoders: int = Field(1, ge=0, description="self-attention layers over the map")
    decoders: int = Field(2, ge=1, description="cross-attention layers from the queries to the map")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout inside the layers")


class CustomHead(Part):
    """A head from an extension file, with keys of its own."""

    model_config = ConfigDict(extra="allow")

    name: str = other_than(*HEADS)


Head = Annotated[
    Annotated[LinearHead, Tag("linear")]
    | Annotated[ReluLogits, Tag("relu_logits")]
    | Annotated[LogitsMLP, Tag("logits_mlp")]
    | Annotated[CategoryMLP, Tag("category_mlp")]
    | Annotated[SharedMLP, Tag("shared_mlp")]
    | Annotated[Query2Label, Tag("query2label")]
    | Annotated[CustomHead, Tag(CUSTOM)],
    Discriminator(known_or_custom(*HEADS)),
]


class NoAverage(Part):
    """No averaging: the weights as they are."""

    name: Literal["none"] = "none"


class EMA(Part):
    """Exponential moving average of the weights (Polyak and Juditsky 1992), evaluated and saved in their place."""

    name: Literal["ema"] = "ema"
    decay: float = Field(
        0.998,
        ge=0,
        lt=1,
        description="share of the average that each step keeps; it rises to this value as (1 + steps) / (10 + steps)",
    )


class SWA(Part):
    """Mean of the weights after each of the last epochs (Izmailov et al. 2018), batch-norm statistics recomputed."""

    name: Literal["swa"] = "swa"
    start: float = Field(0.75, ge=0, lt=1, description="share of the epochs after which averaging starts")


Average = Annotated[NoAverage | EMA | SWA, Field(discriminator="name")]


class Freeze(Part):
    """The epochs in which layers of the backbone are frozen, together with their batch-norm statistics."""

    epochs: int = Field(0, ge=0, description="initial epochs in which only the head learns")
    gradual_epochs: int = Field(
        0, ge=0, description="further epochs over which layers are unfrozen, last first (Howard and Ruder 2018)"
    )


class ProgressiveResizing(Part):
    """Small images first (Howard 2018; Tan and Le 2021): the side grows from epoch to epoch up to image_size."""

    start: float = Field(1.0, gt=0, le=1, description="initial side as a share of image_size; 1 is off")
    until: Share = Field(0.5, description="share of the epochs after which image_size is reached")

    def size(self, full: tuple[int, int], done: float) -> tuple[int, int]:
        """Return the height and width of the training images when the share `done` of the epochs is over.

        They are multiples of 16 pixels, as close to the full aspect ratio as that allows.
        """
        if done >= self.until or self.start == 1:
            return full
        share = self.start + (1 - self.start) * done / self.until
        height, width = (min(one, max(2 * GRAIN, round(share * one / GRAIN) * GRAIN)) for one in full)
        return height, width


class PosthocLogitAdjustment(Part):
    """Correction of a finished model for class frequency: logits - tau log(prior) (Menon et al. 2021)."""

    tau: float = Field(
        0.0, ge=-3, le=3, description="strength; 0 is off, 1 is as if all classes were equally frequent"
    )
    fit: bool = Field(False, description="choose tau on val by the metric; figures on val are then cross-fitted")

    def strength(self, epoch: Epoch, metric: str) -> float:
        """Return the tau of the model after this epoch: the recipe's, or the one fitted to the metric on val."""
        fitted = epoch.corrected.get(metric)
        return fitted.tau if self.fit and fitted else self.tau

    @model_validator(mode="after")
    def _one(self) -> "PosthocLogitAdjustment":
        if self.fit and self.tau:
            raise ValueError("fit chooses tau itself: leave one of the two out")
        return self


class Thresholds(Part):
    """The probability above which a class is an answer, in categories with several answers."""

    fit: bool = Field(
        False,
        description="choose the threshold of each class on val by F1; figures on val are then cross-fitted. Otherwise"
        " it is 0.5",
    )
    min_images: int = Field(
        10, ge=1, description="fit: a class keeps 0.5 if fewer images of val than this have it, or lack it"
    )


class Views(Part):
    """Test-time augmentation: the mean of the logits over several views of each image."""

    flip: bool = Field(False, description="also use each view mirrored")
    scales: tuple[Annotated[float, Field(ge=1, le=2)], ...] = Field(
        (1.0,), min_length=1, description="magnifications; 1 is the whole image"
    )
    crops: Literal[1, 5] = Field(
        1, description="windows per magnification above 1: the centre (1), or also the corners (5)"
    )

    @property
    def count(self) -> int:
        """The number of views per image."""
        return (1 + self.flip) * sum(self.crops if scale > 1 else 1 for scale in self.scales)


def _renamed(value: Any) -> Any:
    if value == "goal":
        raise ValueError("'goal' was renamed to 'metric'")
    return value


def named(*others: str) -> WithJsonSchema:
    """Return the JSON schema for editors: the name of a built-in metric, or of the user's own."""
    return WithJsonSchema({"anyOf": [{"enum": [*others, *BUILT_IN]}, {"type": "string"}]})


Selection = Annotated[str, BeforeValidator(_renamed), named(*SELECTIONS)]


class Normalize(Part):
    """Mean and standard deviation of the input channels, on a scale of 0 to 1."""

    mean: float | tuple[float, float, float] = Field(description="one figure, or one per channel")
    std: Positive | tuple[Positive, Positive, Positive] = Field(description="one figure, or one per channel")


class ImageSize(Part):
    """Height and width of the network's input."""

    height: Pixels = Field(description="height in pixels")
    width: Pixels = Field(description="width in pixels")

    def __str__(self) -> str:
        return f"{self.height} x {self.width}"


NAMED = ("loss", "optimizer", "schedule", "head", "weight_averaging")
"""Parts of `train` whose value may be just a name, short for {name: ...}."""


class TrainConfig(Part):
    """Everything about the training itself; a search space leaves some of it open.

    The defaults here are neutral and must not change: space/defaults.py fills in what a YAML file leaves out.
    """

    backbone: str = Field(description="timm model name, such as seresnet50.ra2_in1k")
    pretrained: bool = Field(True, description="start from published weights; false: from random weights")
    weights: Place | None = Field(
        None,
        description="local weights instead of the model hub's: a file (.safetensors, or tensors saved by torch.save);"
        " a folder as timm writes it, whose config.json also supplies backbone_args and normalize if they are left"
        " out; or a folder with a <backbone>.safetensors, or such a folder, for each backbone",
    )
    backbone_args: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="further arguments for timm.create_model, such as drop_path_rate"
    )
    normalize: Literal["model", "imagenet"] | Normalize = Field(
        "model", description="input normalization; model is the one with which the backbone's weights were trained"
    )
    image_size: Pixels | ImageSize = Field(
        224, description="side of the network's input in pixels, or {height: 256, width: 192}"
    )
    fit: Fit = Field(
        "squash",
        description="how an image of another aspect ratio becomes an input: squash stretches it; pad keeps all of it,"
        " on a background of ImageNet's mean colour; center crops what sticks out",
    )
    head: Head = Field(default_factory=LinearHead, description="module that turns features into class scores")
    drop_path: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth of the backbone (Huang et al. 2016); null keeps its default"
    )
    loss: Loss = Field(default_factory=CrossEntropy, description="loss to minimise")
    optimizer: Optimizer = Field(default_factory=AdamW, description="optimizer and its learning rate")
    schedule: Schedule = Field(default_factory=Cosine, description="how the learning rate changes over the run")
    augment: Augment = Field(default_factory=Augment, description="random changes to the training images")
    balanced_sampling: Share = Field(
        0.0,
        description="0: every image once per epoch; above 0: images are drawn with replacement, with probability"
        " proportional to (mean inverse frequency of their classes) to this power",
    )
    progressive_resizing: ProgressiveResizing = Field(
        default_factory=ProgressiveResizing, description="smaller images in the first epochs"
    )
    freeze: Freeze = Field(default_factory=Freeze, description="when the layers of the backbone learn")
    weight_averaging: Average = Field(default_factory=NoAverage, description="average of the weights over the run")
    epochs: int = Field(20, ge=1, description="passes over the training images; the schedule's horizon")
    batch_size: int = Field(
        64,
        ge=1,
        description="images per batch; a smaller last batch is dropped. If a batch does not fit in GPU memory, it is"
        " processed in equal pieces, with the same steps and loss; batch-norm statistics are then those of a piece."
        " A batch of one image is refused if a batch norm would see a single value per channel",
    )
    accumulate: int = Field(
        1, ge=1, description="batches per optimizer step; batch-norm statistics are still those of one batch"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; no limit if left out")
    selection: Selection = Field(
        "last",
        description="the epoch whose value, weights and predictions are the trial's: the last one (last), the one"
        " with the best metric on val (metric) or the lowest loss on val (loss), or the best one by another metric,"
        " given by its name",
    )
    posthoc_logit_adjustment: PosthocLogitAdjustment = Field(
        default_factory=PosthocLogitAdjustment, description="correction by class frequency"
    )
    thresholds: Thresholds = Field(
        default_factory=Thresholds, description="probability above which a class is one of several answers"
    )
    tta: Views = Field(default_factory=Views, description="test-time augmentation of predictions")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="number format; auto is bf16 on a GPU that has it in hardware, fp16 on any other GPU, and fp32 on"
        " a CPU. With bf16, a CPU that only emulates it trains in fp32",
    )
    channels_last: bool | None = Field(
        None, description="channels-last memory layout; if left out, it depends on the backbone"
    )
    compile: bool = Field(
        False, description="use torch.compile: minutes at a trial's start, then faster steps; for long training runs"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of weights, order of images and augmentation")

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        size = self.image_size
        return (size.height, size.width) if isinstance(size, ImageSize) else (size, size)

    @property
    def framing(self) -> Framing:
        """The framing of the images in the cache."""
        height, width = self.input_size
        common = math.gcd(height, width)
        return Framing() if self.fit == "squash" else Framing(self.fit, height // common, width // common)

    @model_validator(mode="before")
    @classmethod
    def _named_parts(cls, value: Any) -> Any:
        """`loss: focal` is short for `loss: {name: focal}`; likewise for every part that has a name."""
        if not isinstance(value, dict):
            return value
        parts = {key: {"name": value[key]} for key in NAMED if isinstance(value.get(key), str)}
        return value | parts


def _absent(value: object) -> bool:
    return value is None


class Recipe(Part):
    """Everything that one training run depends on: a search space with no parameter left open."""

    data: DataConfig
    metric: str = Field("overall_accuracy", description=JUDGED)
    train: TrainConfig
    derived: tuple[str, ...] = Field(
        (), description="keys that the user did not write, such as data.size: they follow from others"
    )
    extensions: dict[str, str] = Field(
        default_factory=dict,
        exclude_if=not_,
        description="SHA-256 of the study's copies of extension files, by file name",
    )
    folds: int | None = Field(
        None,
        ge=2,
        exclude_if=_absent,
        description="a trial trains this many times, each time evaluated on another fold",
    )
    minimize: bool = Field(
        default_factory=lambda given: minimizes(given.get("metric", "")),
        exclude_if=not_,
        description="lower values of the metric are better",
    )
    minimize_selection: bool = Field(
        default_factory=lambda given: "train" in given and minimizes(given["train"].selection),
        exclude_if=not_,
        description="lower values of the metric that `train.selection` names are better",
    )

    def rank(self, epoch: "Epoch") -> float:
        """Return the quantity that is largest in the selected epoch: its number, or an oriented metric or loss.

        Without val the last epoch is selected. So is that of a cross-validation, whose folds have selected theirs.
        """
        if epoch.val is None or self.folds:
            return epoch.number
        match self.train.selection:
            case "last":
                return epoch.number
            case "loss":
                return -epoch.val.loss
            case "metric":
                return self.oriented(epoch.val.value(self.metric))
            case metric:
                return oriented(epoch.val.value(metric), minimize=self.minimize_selection)

    def oriented(self, value: float) -> float:
        """Return a value of the metric oriented so that larger is better."""
        return oriented(value, minimize=self.minimize)

    @property
    def judges(self) -> tuple[str, ...]:
        """The metrics that decide something: the recipe's own, and that of `selection`."""
        return tuple(dict.fromkeys(name for name in (self.metric, self.train.selection) if name not in SELECTIONS))

    @property
    def further(self) -> tuple[str, ...]:
        """The metrics of `judges` that epochs record in addition to the standard ones."""
        return tuple(name for name in self.judges if name not in STANDARD)

    @property
    def epochs(self) -> int:
        """The number of epochs of a trial, over all of its folds if it has any."""
        return self.train.epochs * (self.folds or 1)

    @property
    def of_fold(self) -> "Recipe":
        """The recipe with which each single fold is trained."""
        return self.model_copy(update={"folds": None})

    def with_seed(self, seed: int) -> "Recipe":
        """Return the recipe with another seed."""
        return self.model_copy(update={"train": self.train.model_copy(update={"seed": seed})})

    @property
    def in_full(self) -> "Recipe":
        """The recipe in 32-bit precision."""
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": "fp32"})})

    @property
    def elsewhere(self) -> "Recipe":
        """The recipe in a form that can be handed on: paths of this machine are cut to their last component."""
        weights = self.train.weights and _last(self.train.weights)
        given = self.data.labels
        labels = _portable(given) if isinstance(given, str) else {split: _portable(p) for split, p in given.items()}
        data = self.data.model_copy(update={"root": _last(self.data.root), "labels": labels})
        return self.model_copy(update={"data": data, "train": self.train.model_copy(update={"weights": weights})})


def _portable(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path


def _last(path: str) -> str:
    return Path(path).resolve().name or "data"
