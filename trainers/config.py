"""The recipe of one training run, and the record of one epoch. Importing this loads no torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Goal = Literal["overall_accuracy", "mean_class_accuracy", "macro_f1", "macro_precision", "macro_recall"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Part(BaseModel):
    """A frozen piece of a recipe that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# ---------------------------------------------------------------------------------------------- data
class DataConfig(Part):
    """Which images, and how they are read."""

    layout: Literal["challenge", "deepfashion", "table", "folder"] = Field(
        "challenge", description="how the folder is laid out; see the README, 'Data sets'"
    )
    root: str = Field(description="folder of the data set, relative to the current folder or absolute")
    labels: str = Field("labels.csv", description="layout table: the CSV file, relative to root")
    crop: Literal["none", "box"] = Field("none", description="box: cut every image to its bounding box")
    val_share: float = Field(
        0.2, gt=0, lt=1, description="share of the images held out for val where the data set names no split"
    )
    split_seed: int = Field(0, ge=0, description="seed of that stratified split")
    size: int | None = Field(
        None,
        ge=32,
        multiple_of=32,
        description="side in pixels of the images in the cache; derived from the space when left out",
    )


# ---------------------------------------------------------------------------------------------- loss
ClassWeights = Literal["none", "inverse_frequency", "effective_number"]


class _Loss(Part):
    category_weights: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="factor of each category's loss, by category name; 1 where left out"
    )
    class_weights: ClassWeights = Field(
        "none", description="weight of each class inside its category, from the training counts; mean 1"
    )
    beta: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="effective_number only: 0 weighs all alike, towards 1 inverse frequency",
    )
    over_categories: Literal["mean", "sum"] = Field("mean", description="how the categories' losses combine")


class CrossEntropy(_Loss):
    """Cross entropy, one softmax a category."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over all classes")


class Focal(_Loss):
    """Focal loss (Lin et al. 2017), one softmax a category."""

    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, description="focusing exponent; 0 is cross entropy")


Loss = Annotated[CrossEntropy | Focal, Field(discriminator="name")]


# ---------------------------------------------------------------------------------------- optimizer
class _Optimizer(Part):
    lr: Positive = Field(description="peak learning rate of the head, and of the backbone times backbone_lr")
    backbone_lr: float = Field(1.0, ge=0, description="learning rate of the backbone as a multiple of lr")
    weight_decay: float = Field(0.0, ge=0, description="decay of weights; norms and biases are left out")


class AdamW(_Optimizer):
    """AdamW (Loshchilov and Hutter 2019): decoupled decay."""

    name: Literal["adamw"] = "adamw"
    lr: Positive = Field(1e-3, description="peak learning rate")
    weight_decay: float = Field(0.05, ge=0, description="decoupled decay; norms and biases are left out")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay of the two moments")


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2015): decay, if any, is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: Positive = Field(1e-3, description="peak learning rate")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay of the two moments")


class SGD(_Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = Field(0.1, description="peak learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="0 is plain gradient descent")
    nesterov: bool = Field(False, description="look ahead; needs momentum")


Optimizer = Annotated[AdamW | Adam | SGD, Field(discriminator="name")]


# ----------------------------------------------------------------------------------------- schedule
class _Schedule(Part):
    warmup_epochs: float = Field(0, ge=0, description="linear rise from near 0 to the peak, in epochs")


class Constant(_Schedule):
    """The peak rate throughout."""

    name: Literal["constant"] = "constant"


class Step(_Schedule):
    """The rate times `factor` after every `every` epochs."""

    name: Literal["step"] = "step"
    every: int = Field(2, ge=1, description="epochs between two steps")
    factor: float = Field(0.8, gt=0, le=1, description="what the rate is multiplied by")


class Cosine(_Schedule):
    """Half a cosine from the peak to `floor` (Loshchilov and Hutter 2017), without restarts."""

    name: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, lt=1, description="last rate as a share of the peak")


class Plateau(_Schedule):
    """The rate times `factor` when the goal has not risen on val for `patience` epochs."""

    name: Literal["plateau"] = "plateau"
    patience: int = Field(5, ge=0, description="epochs without improvement that are tolerated")
    factor: float = Field(0.1, gt=0, lt=1, description="what the rate is multiplied by")


class OneCycle(Part):
    """Up and down once (Smith and Topin 2018), both by a cosine."""

    name: Literal["one_cycle"] = "one_cycle"
    rise: float = Field(0.3, gt=0, lt=1, description="share of the steps spent going up")
    start: float = Field(0.04, gt=0, le=1, description="first rate as a share of the peak")
    floor: float = Field(1e-4, ge=0, lt=1, description="last rate as a share of the peak")


Schedule = Annotated[Constant | Step | Cosine | Plateau | OneCycle, Field(discriminator="name")]


# ------------------------------------------------------------------------------------------ augment
class Augment(Part):
    """Random changes of the training images, drawn for each image from the run's seed. Evaluation sees none."""

    flip: Share = Field(0.5, description="probability of a mirror image")
    crop: Literal["none", "random", "resized"] = Field(
        "none", description="random: a shifted window; resized: a window of random area and aspect"
    )
    margin: float = Field(0.125, ge=0, lt=1, description="crop random: share of the side that the window leaves out")
    min_area: float = Field(0.35, gt=0, le=1, description="crop resized: smallest window as a share of the image")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation either way, in degrees")
    brightness: float = Field(0.0, ge=0, le=1, description="largest change of brightness, as a factor 1 ± this")
    contrast: float = Field(0.0, ge=0, le=1, description="largest change of contrast, as a factor 1 ± this")
    saturation: float = Field(0.0, ge=0, le=1, description="largest change of saturation, as a factor 1 ± this")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest turn of the hue, as a share of the circle")
    erase: Share = Field(0.0, description="probability of one erased rectangle (Zhong et al. 2020)")
    mixup: float = Field(0.0, ge=0, description="MixUp (Zhang et al. 2018): alpha of the Beta; 0 is off")
    cutmix: float = Field(0.0, ge=0, description="CutMix (Yun et al. 2019): alpha of the Beta; 0 is off")


# -------------------------------------------------------------------------------------------- train
class LinearHead(Part):
    """Pooled features, dropout, one linear layer a category."""

    name: Literal["linear"] = "linear"
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the linear layers")


class Normalize(Part):
    """Mean and standard deviation of the input channels, on the scale 0..1."""

    mean: float | tuple[float, float, float] = Field(description="one figure, or one a channel")
    std: Positive | tuple[Positive, Positive, Positive] = Field(description="one figure, or one a channel")


class TrainConfig(Part):
    """Everything about the training itself; a search space leaves some of it open."""

    backbone: str = Field(description="timm model name, such as seresnet50.ra2_in1k")
    pretrained: bool = Field(True, description="start from published weights; false: from random ones")
    weights: str | None = Field(
        None,
        description="local .safetensors file, or a folder of <backbone>.safetensors, instead of the model hub",
    )
    backbone_args: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="further arguments of timm.create_model, such as drop_path_rate"
    )
    normalize: Literal["model", "imagenet"] | Normalize = Field(
        "model", description="input normalization: model is what the backbone's weights were trained with"
    )
    image_size: int = Field(224, ge=16, le=2048, description="side of the network's input in pixels")
    head: LinearHead = Field(default_factory=LinearHead, description="what turns features into class scores")
    loss: Loss = Field(default_factory=CrossEntropy, description="what is minimised")
    optimizer: Optimizer = Field(default_factory=AdamW, description="how it is minimised")
    schedule: Schedule = Field(default_factory=Cosine, description="learning rate over the run")
    augment: Augment = Field(default_factory=Augment, description="random changes of the training images")
    epochs: int = Field(20, ge=1, description="passes over the training images; the schedule's horizon")
    batch_size: int = Field(64, ge=1, description="images an optimizer step; the last, smaller batch is dropped")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; none when left out")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on a GPU that has it in hardware, else fp16 on a GPU; fp32 on a CPU"
    )
    channels_last: bool | None = Field(None, description="memory layout; by backbone family when left out")
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, order of images and augmentation")

    @model_validator(mode="before")
    @classmethod
    def _named_parts(cls, value: Any) -> Any:
        """`loss: focal` is short for `loss: {name: focal}`; the same for every part that has a name."""
        if not isinstance(value, dict):
            return value
        parts = {
            k: {"name": value[k]} for k in ("loss", "optimizer", "schedule", "head") if isinstance(value.get(k), str)
        }
        return value | parts


class Recipe(Part):
    """Everything one training run depends on: a search space with no value left open."""

    data: DataConfig
    goal: Goal = Field("overall_accuracy", description="the metric on val by which epochs and trials are judged")
    train: TrainConfig


# -------------------------------------------------------------------------------------------- epoch
class Scores(Part):
    """One split after one epoch. Accuracies are over the whole split, never a mean over batches."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    loss: float = Field(description="mean over images of the objective, without mixing or smoothing on val")
    overall_accuracy: float = Field(description="correct labels / (images x categories)")
    mean_class_accuracy: float = Field(description="mean recall of all classes that occur in the split")
    macro_precision: float = Field(description="mean precision of those classes; 0 for one never predicted")
    macro_recall: float = Field(description="the same figure as mean_class_accuracy, under its other name")
    macro_f1: float = Field(description="mean F1 of those classes")
    category_accuracy: dict[str, float] = Field(description="accuracy of each category, by name")


class Epoch(Part):
    """What one pass over the training images left behind: one line of history.jsonl."""

    index: int = Field(ge=0, description="0 for the first")
    train: Scores = Field(description="on the augmented images, as they passed")
    val: Scores | None = Field(description="on val, without augmentation; none when there is no val")
    lr: float = Field(description="learning rate of the head at the last step")
    seconds: float = Field(description="wall time of the epoch, evaluation included")
    images_per_second: float = Field(description="training images over the time spent training")
    peak_memory_gb: float = Field(description="peak memory, GiB: of the GPU, or of the process on a CPU")
    time: float = Field(description="Unix time when the epoch ended, seconds")

    def value(self, goal: Goal) -> float:
        """The goal on val, or on train where there is no val."""
        return float(getattr(self.val or self.train, goal))
