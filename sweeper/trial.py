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
FIRST = 0  # a study's first trial is never pruned, so that even a short study has a winner
OPEN: tuple[State, ...] = ("RUNNING", "PAUSED", "INTERRUPTED")  # a trial that may continue
Failure = Literal["nan", "overflow", "oom", "died", "hung", "disk", "error"]  # overflow: nan in fp16


class Message(Frozen):
    """A message or record, the same in memory, on a pipe and on disk (JSON)."""


class SearchState(Message):
    """search.json: what the sampler and the pruner of an extension file keep in Optuna's attributes.

    CMA-ES keeps its distribution in those of trials, a quasi-random sequence its position in those of the study.
    """

    turn: int = Field(description="counts these records of a study; the latest has the study's current attributes")
    trial: dict[str, Any] = Field(description="the attributes of this trial")
    study: dict[str, Any] = Field(description="the attributes of the study at that time")


class EnsembleMember(Message):
    """A model of an ensemble: the final model of a trial."""

    trial: int
    seed: int | None = Field(None, description="seed of its retraining, if not the trial's own")
    share: float = Field(description="weight of its logits in the mean over all models")
    final: str = Field(description="name of its folder in finals/")
    temperature: dict[str, float] = Field(
        default_factory=dict, description="divisor of its logits before the mean, by category"
    )


class Ensemble(Message):
    """Models whose logits are averaged: trials chosen by their predictions on val when they were trained on train
    alone, or one trial retrained with several seeds.
    """

    members: tuple[EnsembleMember, ...]
    temperature: dict[str, float] = Field(
        default_factory=dict, description="divisor of the mean logits, fitted on val, by category"
    )
    val: Scores | None = Field(None, description="scores of the mean on val, with standard errors; none for seeds")
    most: int = Field(description="largest number of members that was allowed")
    started: float = Field(description="time when it was chosen, in seconds since 1970")

    @property
    def name(self) -> str:
        """The members: `trials 4, 0 and 7`, the one with the largest share first, or `trial 4 with 2 seeds`."""
        if self.repeats:
            return f"trial {self.members[0].trial} with {len(self.members)} seeds"
        *others, last = [str(one.trial) for one in self.members]
        return f"trials {', '.join(others)} and {last}"

    @property
    def repeats(self) -> bool:
        """True if all members are retrainings of one trial with different seeds."""
        return len({one.trial for one in self.members}) == 1


class Job(Message):
    """A training run in `folder`; it resumes from the checkpoint there, if any."""

    tag: Literal["job"] = "job"
    study: str
    trial: int
    kind: Kind = "trial"
    recipe: Recipe
    params: dict[str, Any] = Field(default_factory=dict, description="values of the parameters, by dotted name")
    folder: Path
    cache: Path = Field(description="folder of the decoded images")
    resumed: bool = Field(False, description="it started earlier and resumes now")
    recorded: tuple[Epoch, ...] = Field(
        (), exclude_if=not_, description="epochs on record; their figures stay if those epochs are trained again"
    )
    repeat_of: int | None = Field(None, description="the trial whose configuration this repeats with a new seed")
    micro_batch: int | None = Field(
        None, ge=1, description="images per pass through the network, if a whole batch does not fit into memory"
    )
    resident: bool = Field(True, description="the decoded images may lie on the GPU, if nothing else trains there")
    full_precision: bool = Field(False, description="32 bits whatever the recipe sets, because fp16 diverged")
    seed: int | None = Field(None, description="retraining: its seed, if not the trial's own")
    only_predict: bool = Field(False, description="retraining: the model is trained already and only predicts test")
    stop_after: int | None = Field(None, description="retraining: number of epochs after which training stops")

    metric_history: tuple[float, ...] = Field(
        (), description="retraining: the winner's metric on val after each epoch"
    )
    use_tta: bool = Field(True, description="retraining: predictions use the recipe's test-time augmentation")
    tau: float | None = Field(None, description="retraining: strength of the winner's posterior correction")
    thresholds: dict[str, tuple[float, ...]] | None = Field(
        None, description="retraining: thresholds that the winner fitted, by category with several answers"
    )
    temperature: dict[str, float] = Field(
        default_factory=dict, description="retraining: temperatures that the winner fitted, by category"
    )

    ensemble: Ensemble | None = Field(
        None, description="final model: put together from the final models of other trials, without training"
    )

    @property
    def key(self) -> str:
        """The run's folder within the study, such as trials/0007; it stands for the run in messages and views."""
        return "/".join(self.folder.parts[-2:])

    @property
    def has_new_seed(self) -> bool:
        """True if it trains a trial's configuration with a seed other than the trial's own."""
        return self.kind == "confirm" or self.seed is not None

    @property
    def length(self) -> str:
        """The length of a retraining, such as `12 of 20 epochs`, and the reason unless `selection` is `last`."""
        train = self.recipe.train
        where = "in the folds, on average" if self.recipe.folds else "on val"
        why = "" if train.selection == "last" else f", as many as selection: {train.selection} chose {where}"
        return f"{self.stop_after} of {train.epochs} epochs{why}"

    @property
    def folds(self) -> int | None:
        """The number of trainings, each judged on other images; None for a single one, as a retraining always is."""
        return None if self.kind == "final" else self.recipe.folds

    @property
    def planned(self) -> int:
        """The number of epochs after which it finishes by itself, over all folds."""
        return self.stop_after or (self.recipe.epochs if self.folds else self.recipe.train.epochs)

    @property
    def computed(self) -> Recipe:
        """The recipe as it is computed: in 32 bits if `full_precision` is set."""
        return self.recipe.in_full if self.full_precision else self.recipe

    @property
    def label(self) -> str:
        """The name of the run in messages."""
        if self.ensemble:
            return self.title
        trial = f"trial {self.trial}"
        seed = "" if self.seed is None else f" with seed {self.seed}"
        again = {"final": f"retraining of {trial}{seed}", "confirm": f"{trial} with seed {self.recipe.train.seed}"}
        return again.get(self.kind, trial)

    @property
    def title(self) -> str:
        """A title whose first 14 characters distinguish the run from others."""
        backbone = self.recipe.train.backbone.split(".")[0]
        if self.ensemble:
            return f"ensemble of {len(self.ensemble.members)}"
        if self.kind == "final":
            return f"final t{self.trial:04d}" + ("" if self.seed is None else f" s{self.seed}")
        return f"t{self.trial:04d} {f'seed {self.recipe.train.seed}' if self.kind == 'confirm' else backbone}"


class Progress(Message):
    """An epoch is done, and on disk if it is the last one; the worker waits for an answer."""

    tag: Literal["progress"] = "progress"
    key: str = Field(description="of its job")
    epoch: Epoch


class Done(Message):
    """The run finished, by itself or because it was stopped; all its epochs are on disk."""

    tag: Literal["done"] = "done"
    key: str = Field(description="of its job")
    stopped: bool = False
    scores: Scores | None = Field(None, description="retraining: scores on test, if its images have labels")
    tta: Look | None = Field(None, description="on val with the recipe's test-time augmentation, if it has any")
    standard_errors: dict[str, float] = Field(default_factory=dict, description="of each metric on val")


class Failed(Message):
    """The run failed: `text` is the error on one line, `detail` the traceback or the end of the log."""

    tag: Literal["failed"] = "failed"
    key: str = Field(description="of its job")
    failure: Failure
    text: str
    detail: str = ""
    shared_device: bool = Field(False, description="other trials ran on the same device")
    resident: bool = Field(False, description="oom: the decoded images were on the GPU, too")
    gpu_memory_gib: float | None = Field(None, description="oom: total memory of the GPU that ran out")


WorkerMessage = Annotated[Progress | Done | Failed, Field(discriminator="tag")]


class RunningTrial(Message):
    """An entry of running.json: where a trial runs or is trained again, and its position within the epoch."""

    key: str = Field(description="of its job")
    slot: str
    at: Position | None = None


class RunningTrials(Message):
    """The contents of running.json."""

    trials: tuple[RunningTrial, ...] = ()


@dataclass(frozen=True)
class SessionEnd:
    """The outcome of a session: the exit code, and one line with the reason if it is not obvious."""

    exit_code: int = 0
    reason: str = ""


class TrialResult(Message):
    """The status of a trial; result.json once it has finished."""

    number: int
    state: State
    metric: str
    minimize: bool = Field(
        default_factory=lambda given: minimizes(given.get("metric", "")),
        exclude_if=not_,
        description="lower values of the metric are better",
    )
    value: float | None = Field(None, description="the metric after the epoch that counts")
    epoch: int | None = Field(None, description="number of that epoch, from 1: the last, or `selection`'s choice")
    epochs: int = Field(0, description="epochs done")
    planned: int = Field(description="epochs that the recipe plans")
    backbone: str
    params: dict[str, Any] = Field(default_factory=dict)
    seconds: float = Field(0.0, description="time spent in epochs")
    failure: Failure | None = None
    error: str | None = Field(None, description="one line")
    gpu_memory_gib: float | None = Field(None, description="oom: total memory of the GPU that ran out")
    tta: Look | None = Field(None, description="that epoch's result on val with the recipe's test-time augmentation")
    standard_errors: dict[str, float] = Field(
        default_factory=dict, exclude_if=not_, description="of each metric after that epoch, by bootstrap over images"
    )
    repeat_of: int | None = None
    ended: float | None = Field(None, exclude_if=not_, description="retraining: Unix time of its end, in seconds")

    @property
    def standard_error(self) -> float | None:
        """The standard error of the value; None if unknown."""
        return self.standard_errors.get(self.metric)

    @property
    def oriented(self) -> float:
        """The value for comparisons: larger is better, -inf if there is none."""
        if self.value is None or math.isnan(self.value):
            return -math.inf
        return oriented(self.value, minimize=self.minimize)


@dataclass(frozen=True)
class Closing:
    """The end of a session: the study's state, the files to show with it, and the seconds without progress after
    which an observer gives up its remaining work.
    """

    state: State
    files: tuple[Path, ...] = ()
    timeout: float = 10.0
    followed: bool = False  # by another session of this process, which does the rest

    @property
    def hurried(self) -> bool:
        """True if there is no time for more than trivial work."""
        return self.timeout < 2.0


class Observer(Protocol):
    """Receives each event of a run once it is on record, and decides nothing. Only `closed` may block.

    It can be brought up to date from the folders at any later time, so nothing else depends on what it misses.
    """

    def moved(self, positions: Mapping[str, Position], /) -> None:  # noqa: ARG002  most observers show no batches
        """Receive the positions within the epochs of running trials, several times per second, changed or not."""
        return

    def started(self, job: Job, slot: str, /) -> None: ...
    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None, /) -> None: ...
    def ended(self, job: Job, result: TrialResult, /) -> None: ...
    def note(self, text: str, /) -> None: ...
    def closed(self, closing: Closing, /) -> None: ...


STATUS: dict[str, str] = {
    "RUNNING": "RUNNING",
    "PAUSED": "RUNNING",  # MLflow has no such status; the tag sweep.state has it
    "COMPLETE": "FINISHED",
    "PRUNED": "FINISHED",
    "FAILED": "FAILED",
    "INTERRUPTED": "KILLED",
}
