"""The parts of a study file besides the training: name, metric, budget, sampler, pruner. No file is read here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from sweeper.space.tree import Node
from trainers.config import CUSTOM, JUDGED, known_or_custom, named, other_than
from trainers.data_config import DataConfig
from trainers.epoch import Part
from trainers.extensions import ExtensionFile
from trainers.metrics.definitions import definition

Positive = Annotated[int, Field(ge=1)]
WeightsRule = Literal["any", "in1k", "none"]
STARTUP = "trials with a result before the model proposes values; until then, the prior is used, or even draws"


class Budget(Part):
    """The limits of a study, which ends at the first one that it reaches."""

    trials: Positive | None = Field(None, description="trials in the whole study, pruned and failed ones included")
    hours: float | None = Field(
        None,
        gt=0,
        description="wall-clock hours of sweeping, over all resumes; if trials is left out, sweep plans them, and"
        " they include the winner's retraining",
    )


# ------------------------------------------------------------------------------------------ sampler
class TPE(Part):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), each parameter by itself."""

    name: Literal["tpe"] = "tpe"
    startup_trials: int = Field(10, ge=0, description=STARTUP)


class RandomSampler(Part):
    """Independent draws."""

    name: Literal["random"] = "random"


class GP(Part):
    """Gaussian process; good for 50 to 100 trials of a space without branches, but blind to pruned trials."""

    name: Literal["gp"] = "gp"
    startup_trials: int = Field(10, ge=0, description=STARTUP)


class Grid(Part):
    """Every configuration once; needs a space of choices, whole numbers and steps."""

    name: Literal["grid"] = "grid"


class CustomSampler(Part):
    """A sampler from an extension file, with keys of its own."""

    model_config = ConfigDict(extra="allow")

    name: str = other_than("tpe", "random", "gp", "grid")


Sampler = Annotated[
    Annotated[TPE, Tag("tpe")]
    | Annotated[RandomSampler, Tag("random")]
    | Annotated[GP, Tag("gp")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[CustomSampler, Tag(CUSTOM)],
    Discriminator(known_or_custom("tpe", "random", "gp", "grid")),
]


# ------------------------------------------------------------------------------------------- pruner
class Median(Part):
    """Stops a trial whose best value so far is worse than the median of the completed trials at that epoch."""

    name: Literal["median"] = "median"
    startup_trials: int = Field(5, ge=0, description="trials that must complete before any trial is stopped")
    warmup_epochs: int | None = Field(
        None,
        ge=0,
        description="first epochs of a trial, in which it is not stopped; when left out 3 (in a short training just"
        " under half of its epochs), but at least the epochs in which the learning rate still rises",
    )
    min_trials: Positive = Field(5, description="completed trials needed at an epoch to stop a trial there")


class Asha(Part):
    """Asynchronous successive halving (Li et al. 2020): at each rung only the best continue."""

    name: Literal["asha"] = "asha"
    type: Literal["promotion", "stopping"] = Field(
        "promotion",
        description="what happens to the others: promotion pauses them, and they continue if they prove to be good;"
        " stopping ends them",
    )
    min_epochs: Positive = Field(
        1,
        description="epochs to the first rung, where a trial is first compared; at least a third of all is advisable",
    )
    reduction_factor: int = Field(
        3,
        ge=2,
        description="one in this many trials continues at each rung (3: the best third); each rung is after this many"
        " times the epochs of the one before",
    )


class EarlyStopping(Part):
    """Stops a trial whose latest epochs are all worse than its best one before, whatever the others do."""

    name: Literal["early_stopping"] = "early_stopping"
    patience: int = Field(
        5, ge=0, description="epochs in a row that may be worse than the best one before; one more ends the trial"
    )
    min_delta: float = Field(
        0.0, ge=0, description="difference that an epoch must exceed to count as worse, in units of the metric"
    )


class NoPruner(Part):
    """Every trial runs to its end."""

    name: Literal["none"] = "none"


class CustomPruner(Part):
    """A pruner from an extension file, with keys of its own."""

    model_config = ConfigDict(extra="allow")

    name: str = other_than("median", "asha", "early_stopping", "none")


Pruner = Annotated[
    Annotated[Median, Tag("median")]
    | Annotated[Asha, Tag("asha")]
    | Annotated[EarlyStopping, Tag("early_stopping")]
    | Annotated[NoPruner, Tag("none")]
    | Annotated[CustomPruner, Tag(CUSTOM)],
    Discriminator(known_or_custom("median", "asha", "early_stopping", "none")),
]


class Confirm(Part):
    """The best trials, trained again with new seeds after the search; the best mean over these seeds wins."""

    top: int = Field(4, ge=2, description="number of best trials to confirm")
    seeds: Positive = Field(3, description="new seeds per trial")
    share: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="largest share of budget.hours for it; fewer seeds or fewer trials are tried to stay within",
    )

    def trainings(self, slots: int) -> int:
        """Return the number of trainings in a row if `slots` of them run side by side."""
        return math.ceil(self.top / slots) * self.seeds


class Prior(Part):
    """The first draws of one parameter, as in `prior: {optimizer.lr: {around: 1e-3}}`: most of them near a value."""

    around: bool | int | float | str | None = Field(
        description="a value that is likely to be good; for a choice, an option or the name of a branch"
    )
    factor: float | None = Field(
        None,
        gt=1,
        description="for a logarithmic range: two of three draws lie between around / factor and around x factor; 3"
        " when left out",
    )
    spread: float | None = Field(
        None,
        gt=0,
        description="for a linear range: two of three draws lie within this distance of around; when left out, a"
        " fifth of the range, but at least a step for whole numbers",
    )
    share: float | None = Field(
        None, gt=0, le=1, description="for a choice: the share of draws that take around; 0.5 when left out"
    )


class Search(Part):
    """The choice of parameters, and the early end of hopeless trials."""

    sampler: Sampler = Field(default_factory=TPE, description="what proposes the next configuration")
    pruner: Pruner = Field(default_factory=Median, description="what stops a trial before its last epoch")
    prior: Literal["off"] | dict[str, Prior] = Field(
        default_factory=dict,
        description="where tpe and gp draw their startup_trials: near the defaults of the backbone's family, or near"
        " the values given here by the dotted name of a parameter, as long as even draws do no better; off draws"
        " evenly. random uses only the values given here",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the sampler")
    folds: int | None = Field(
        None,
        ge=2,
        le=20,
        description="cross-validation: train and val together are split into this many folds, the same for all"
        " trials, and a trial is one training per fold, judged on that fold; off when left out",
    )
    confirm: Confirm | None = Field(
        None, description="the best trials are trained again with new seeds within the budget; off when left out"
    )

    @property
    def has_own(self) -> bool:
        """True if the sampler or the pruner comes from an extension file."""
        return isinstance(self.sampler, CustomSampler) or isinstance(self.pruner, CustomPruner)

    @field_validator("folds", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        if value == 1 and value is not True:
            raise ValueError(
                "one fold leaves no image to train on: write folds: 5, or leave it out to judge trials on val"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Expand `sampler: tpe` to `sampler: {name: tpe}`; the same for the pruner."""
        if not isinstance(value, dict):
            return value
        off = {"prior": "off"} if value.get("prior") is False else {}  # as YAML 1.1 reads off
        return value | off | {k: {"name": value[k]} for k in ("sampler", "pruner") if isinstance(value.get(k), str)}


class Rules(Part):
    """The rules of a competition; anything they forbid is refused before training starts."""

    ensemble: bool = Field(True, description="the final model may be an ensemble, the mean of several models")
    weights: WeightsRule = Field(
        "any",
        description="what a network may start from. in1k: published weights from ImageNet-1k alone, judged by their"
        " name; none: random weights alone",
    )


# ------------------------------------------------------------------------------------------- a file
Preset = Literal["fast", "good", "best"]


class StudyFile(Part):
    """The keys of a search space; `train` is a TrainConfig with some values left open."""

    study: str | None = Field(
        None,
        pattern=r"^[a-z0-9_][a-z0-9_.-]*$",
        max_length=64,
        description="name of the study and of its folder: a-z, 0-9, _, . and -; the file's own name when left out",
    )
    extensions: tuple[str, ...] = Field(
        (),
        description="Python files that define losses, metrics and more of your own, by paths relative to this file's"
        " folder; they are executed",
    )
    data: DataConfig = Field(description="the images, and how they are read")
    metric: Annotated[str, named()] = Field("overall_accuracy", description=JUDGED)
    budget: Budget = Field(
        default_factory=Budget,
        description="when the study ends. A search needs trials, hours or both, unless its sampler is grid; a file"
        " without parameters is one trial",
    )
    search: Search = Field(default_factory=Search, description="how the parameters are chosen")
    rules: Rules = Field(default_factory=Rules, description="what a competition allows")
    keep_checkpoints: Positive | None = Field(
        None,
        description="number of best trials that keep checkpoints, all when left out; predictions on val stay, up to"
        " 20 MB per completed trial",
    )
    preset: Preset | None = Field(
        None,
        description="provides backbone, image_size, epochs and batch_size for this device (with fast also augment)"
        " if train leaves them out; the default is good if train has no backbone, and best if it has one and hours"
        " are the only budget",
    )
    train: dict[str, Any] = Field(
        default_factory=dict, description="everything about the training; a value here may be left open"
    )


@dataclass(frozen=True)
class StudySpec:
    """A search space as read: `train` is a tree with distributions, every other part is closed."""

    study: str
    data: DataConfig
    metric: str
    budget: Budget
    search: Search
    train: Node = field(repr=False)
    source: Path
    text: str = field(repr=False)
    keep_checkpoints: int | None = None
    derived: tuple[str, ...] = ()  # keys that the file leaves out: their values follow from others
    extensions: tuple[ExtensionFile, ...] = ()
    preset: Preset | None = None
    of_preset: Mapping[str, Any] = field(default_factory=dict)  # what `train` takes from it, by key
    prior: Node | None = field(default=None, repr=False)  # search.prior as written, with its places
    rules: Rules = field(default_factory=Rules)
    by_hours: bool = False  # the file gives only hours, and a planner decides how to spend them

    @property
    def minimize(self) -> bool:
        """True if lower values of the metric are better."""
        return definition(self.metric).minimize
