"""The messages between coordinator and workers, and the records of a trial."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import not_
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from trainers.config import Recipe
from trainers.epoch import Epoch, Frozen, Look, Scores
from trainers.metrics.definitions import minimizes, oriented
from trainers.support.position import Position

Kind = Literal["trial", "confirm", "final"]
State = Literal["RUNNING", "PAUSED", "COMPLETE", "PRUNED", "FAILED", "INTERRUPTED"]
FIRST = 0  # a study's first trial is never pruned: so the study has a winner, however short it is
OPEN: tuple[State, ...] = ("RUNNING", "PAUSED", "INTERRUPTED")  # a trial that may go on
Failure = Literal["nan", "overflow", "oom", "died", "hung", "disk", "error"]  # overflow: nan in fp16


class Message(Frozen):
    """A message or record, the same in memory, on a pipe and on disk (JSON)."""


class SearchState(Message):
    """search.json: what a sampler and a pruner of extension files have kept in Optuna's attributes.

    CMA-ES keeps its distribution in those of trials, and a quasi-random sequence its place in those of the study.
    """

    turn: int = Field(description="counts these records of a study: that of the highest one has the study's as it is")
    trial: dict[str, Any] = Field(description="the attributes of this trial")
    study: dict[str, Any] = Field(description="those of the study at that time")


class EnsembleMember(Message):
    """A model of an ensemble: the final of a trial."""

    trial: int
    share: float = Field(description="of the mean of all models' logits")
    final: str = Field(description="name of its folder in finals")
    temperature: dict[str, float] = Field(
        default_factory=dict, description="by what its logits are divided before the mean, by category"
    )


class Ensemble(Message):
    """Models whose logits are averaged; chosen by their predictions on val, when they were fitted on train."""

    members: tuple[EnsembleMember, ...]
    temperature: dict[str, float] = Field(default_factory=dict, description="of the mean, fitted on val, by category")
    val: Scores = Field(description="of the mean on val, with standard errors")
    most: int = Field(description="members that there might have been")
    started: float = Field(description="when it was chosen, seconds since 1970")

    @property
    def name(self) -> str:
        """`trials 4, 0 and 7`, the one with the largest share first."""
        *others, last = [str(one.trial) for one in self.members]
        return f"trials {', '.join(others)} and {last}"


class Job(Message):
    """One training run to be done in `folder`; whatever checkpoint lies there is continued."""

    tag: Literal["job"] = "job"
    study: str
    trial: int
    kind: Kind = "trial"
    recipe: Recipe
    params: dict[str, Any] = Field(default_factory=dict, description="the open values, by dotted name")
    folder: Path
    cache: Path = Field(description="folder of the decoded images")
    resumed: bool = Field(False, description="it was begun before, and is continued")
    recorded: tuple[Epoch, ...] = Field(
        (), exclude_if=not_, description="epochs on record: their figures stand where they are trained again"
    )
    repeat_of: int | None = Field(None, description="the trial whose configuration this repeats with a new seed")
    micro_batch: int | None = Field(
        None, ge=1, description="images that pass through the network at once, where a batch of them has no room"
    )
    resident: bool = Field(
        True, description="whether the decoded images may lie on the GPU that trains alone on them"
    )
    full_precision: bool = Field(False, description="32 bits whatever the recipe says: in fp16 it diverged")
    only_predict: bool = Field(False, description="final: it is trained, and predicts test alone")
    stop_after: int | None = Field(None, description="final: number of epochs after which training ends")

    metric_history: tuple[float, ...] = Field(
        (), description="final: the metric on val after each epoch of the winner"
    )
    use_tta: bool = Field(True, description="final: whether predictions take the recipe's test-time views")
    tau: float | None = Field(None, description="final: strength of the posterior correction that the winner fitted")
    thresholds: dict[str, tuple[float, ...]] | None = Field(
        None, description="final: the thresholds that the winner fitted, by category with several answers"
    )
    temperature: dict[str, float] = Field(
        default_factory=dict, description="final: the temperatures that the winner fitted, by category"
    )

    ensemble: Ensemble | None = Field(
        None, description="final: it is trained of nothing but the finals of other trials, put together"
    )

    @property
    def length(self) -> str:
        """How long a final trains, and why where that is not its whole schedule."""
        train = self.recipe.train
        where = "in the folds, on average" if self.recipe.folds else "on val"
        why = "" if train.selection == "last" else f", as many as selection: {train.selection} chose {where}"
        return f"{self.stop_after} of {train.epochs} epochs{why}"

    @property
    def folds(self) -> int | None:
        """How many trainings it is, each judged on another part of the images; a final is one on all of them."""
        return None if self.kind == "final" else self.recipe.folds

    @property
    def planned(self) -> int:
        """Epochs after which it ends by itself, those of all folds."""
        return self.stop_after or (self.recipe.epochs if self.folds else self.recipe.train.epochs)

    @property
    def computed(self) -> Recipe:
        """The recipe as it is really computed."""
        return self.recipe.in_full if self.full_precision else self.recipe

    @property
    def label(self) -> str:
        """What messages call the run."""
        return f"trial {self.trial}" if self.kind == "trial" else self.title

    @property
    def title(self) -> str:
        """What tells runs apart, in the first 14 characters."""
        backbone = self.recipe.train.backbone.split(".")[0]
        if self.ensemble:
            return f"ensemble of {len(self.ensemble.members)}"
        if self.kind == "final":
            return f"final t{self.trial:04d}"
        return f"t{self.trial:04d} {f'seed {self.recipe.train.seed}' if self.kind == 'confirm' else backbone}"


class Progress(Message):
    """One epoch is done, and on disk if it is the last; the worker waits for an answer."""

    tag: Literal["progress"] = "progress"
    trial: int
    epoch: Epoch


class Done(Message):
    """The run ended by itself, or after it was told to stop; all its epochs are on disk."""

    tag: Literal["done"] = "done"
    trial: int
    stopped: bool = False
    scores: Scores | None = Field(None, description="final: on test, where its images have labels")
    tta: Look | None = Field(None, description="on val with the recipe's test-time augmentation, where it has one")
    standard_errors: dict[str, float] = Field(default_factory=dict, description="of each metric on val")


class Failed(Message):
    """The run ended with an error: `text` is one line, `detail` the traceback or the end of the log."""

    tag: Literal["failed"] = "failed"
    trial: int
    failure: Failure
    text: str
    detail: str = ""
    shared_device: bool = Field(False, description="other trials ran on the same device")
    resident: bool = Field(False, description="oom: the decoded images lay on the GPU, too")
    gpu_memory_gib: float | None = Field(None, description="oom: memory in all of the GPU that had no room")


WorkerMessage = Annotated[Progress | Done | Failed, Field(discriminator="tag")]


class RunningTrial(Message):
    """Of running.json: where a trial runs, or is trained again, and how far its epoch is."""

    trial: int
    slot: str
    at: Position | None = None
    folder: str = ""  # of the run


class RunningTrials(Message):
    """running.json."""

    trials: tuple[RunningTrial, ...] = ()


@dataclass(frozen=True)
class SessionEnd:
    """How a session ended: the exit code, and one line that says why where that is not plain."""

    exit_code: int = 0
    reason: str = ""


class TrialResult(Message):
    """How a trial stands; result.json once it has ended."""

    number: int
    state: State
    metric: str
    minimize: bool = Field(
        default_factory=lambda given: minimizes(given.get("metric", "")),
        exclude_if=not_,
        description="less of the metric is better",
    )
    value: float | None = Field(None, description="the metric after the epoch that counts")
    epoch: int | None = Field(None, description="number of that epoch, from 1: the last, or what `selection` chose")
    epochs: int = Field(0, description="epochs done")
    planned: int = Field(description="epochs the recipe asks for")
    backbone: str
    params: dict[str, Any] = Field(default_factory=dict)
    seconds: float = Field(0.0, description="time spent in epochs")
    failure: Failure | None = None
    error: str | None = Field(None, description="one line")
    gpu_memory_gib: float | None = Field(None, description="oom: memory in all of the GPU that had no room")
    tta: Look | None = Field(None, description="that epoch on val, with the recipe's test-time augmentation")
    standard_errors: dict[str, float] = Field(
        default_factory=dict, exclude_if=not_, description="of each metric after that epoch, by bootstrap over images"
    )
    repeat_of: int | None = None

    @property
    def standard_error(self) -> float | None:
        """That of the value; None where it is not known."""
        return self.standard_errors.get(self.metric)

    @property
    def oriented(self) -> float:
        """The value for comparisons: the larger the better, -inf where there is none."""
        if self.value is None or math.isnan(self.value):
            return -math.inf
        return oriented(self.value, minimize=self.minimize)


@dataclass(frozen=True)
class Closing:
    """How a session ends: the study's state, files to be shown with it, and the seconds without progress after which
    an observer gives up what is left.
    """

    state: State
    files: tuple[Path, ...] = ()
    timeout: float = 10.0

    @property
    def hurried(self) -> bool:
        """Whether only what is next to nothing may still be done."""
        return self.timeout < 2.0


class Observer(Protocol):
    """Is told what happens to runs, when it is on record, and decides nothing. No call waits but `closed`.

    It can be brought up to date from the folders at any later time, so whatever it lacks costs nobody anything else.
    """

    def moved(self, positions: Mapping[int, Position], /) -> None:  # noqa: ARG002  most show no batches
        """How far the epochs of running trials are, several times a second, whether it has changed or not."""
        return

    def started(self, job: Job, slot: str, /) -> None: ...
    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None, /) -> None: ...
    def ended(self, job: Job, result: TrialResult, /) -> None: ...
    def note(self, text: str, /) -> None: ...
    def closed(self, closing: Closing, /) -> None: ...


STATUS: dict[str, str] = {
    "RUNNING": "RUNNING",
    "PAUSED": "RUNNING",  # MLflow has no word for it; the tag sweep.state has
    "COMPLETE": "FINISHED",
    "PRUNED": "FINISHED",
    "FAILED": "FAILED",
    "INTERRUPTED": "KILLED",
}
