"""The state of a running sweep as figures and short texts, independent of how they are drawn."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sweeper.terminal.heading import Heading
from sweeper.text import format_duration, format_value
from sweeper.trial import OPEN, Job, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position

BAR, ASCII_BAR, BAR_WIDTH = "━─", "#-", 10
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"


def _none(_: Job) -> Sequence[Epoch]:
    return ()


@dataclass(frozen=True)
class Known:
    """Facts about a study's trials that are known before they start."""

    names: Mapping[str, str] = field(default_factory=dict)  # the short names of parameters
    history: Callable[[Job], Sequence[Epoch]] = _none  # the epochs on record


@dataclass
class RunningRow:
    """A running trial."""

    job: Job
    slot: str
    epochs: list[Epoch] = field(default_factory=list)
    names: Mapping[str, str] = field(default_factory=dict)
    at: Position | None = None  # in the current epoch
    loads: bool = True  # is loading libraries and data, before its first batch

    @property
    def parameters(self) -> str:
        """The trial's parameters in the format of the leaderboard: `lr 0.00123, gamma 2.1`."""
        found = self.job.params.items()
        return ", ".join(f"{self.names.get(name, name)} {_written(value)}" for name, value in found)

    @property
    def split(self) -> str:
        """The split that its values are measured on."""
        return _split(self.epochs[-1]) if self.epochs else "train" if self.job.kind == "final" else "val"

    @property
    def planned(self) -> int:
        return self.job.planned

    @property
    def done(self) -> int:
        """Epochs done, including those of an earlier session."""
        return self.epochs[-1].number if self.epochs else 0

    @property
    def values(self) -> list[float]:
        """The metric after each epoch, on val, else on train; the train loss if the metric is unknown."""
        known = [(epoch.known(self.job.recipe.metric), epoch.train.loss) for epoch in self.epochs]
        return [loss if value is None else value for value, loss in known]

    @property
    def seconds_left(self) -> float | None:
        """The remaining seconds, by the mean of the last three epochs; None before the first."""
        if not self.epochs:
            return None
        recent = [epoch.seconds for epoch in self.epochs[-3:]]
        return sum(recent) / len(recent) * (self.planned - self.done)


@dataclass
class SweepSummary:
    """The state of a sweep: running and finished trials, the best one, and the remaining time."""

    rows: dict[str, RunningRow] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    paused: set[int] = field(default_factory=set)
    known: Known = field(default_factory=Known)
    split: str = "val"  # that the values of trials are measured on
    total: int | None = None
    best: TrialResult | None = None
    _spent: list[float] = field(default_factory=list)
    _slots: int = 1
    _deadline: float | None = None

    def plan(self, total: int | None, results: Sequence[TrialResult], seconds: float | None = None) -> None:
        """Set the planned number of trials, the earlier results (unfinished ones run again), and the seconds left."""
        self.total = total
        self._deadline = None if seconds is None else time.monotonic() + seconds
        for result in results:
            self.end(result)

    def start(self, job: Job, slot: str) -> RunningRow:
        """Add a run that starts, or resumes after its recorded epochs."""
        row = RunningRow(job, slot, list(self.known.history(job)), self.known.names)
        self.rows[job.key], self.split = row, row.split
        self.paused.discard(job.key)
        self._slots = max(self._slots, len(self.rows))
        return row

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> RunningRow:
        row = self.rows.get(job.key) or self.start(job, "")
        row.epochs = [*row.epochs[: epoch.number - 1], epoch]
        self.best, self.split, row.loads = best or self.best, row.split, False
        return row

    def move(self, positions: Mapping[str, Position]) -> None:
        for key, row in self.rows.items():
            row.at = positions.get(key)
            row.loads = row.loads and row.at is None

    def end(self, result: TrialResult, *, job: Job | None = None, counts: bool = True) -> None:
        """Remove a run that has finished or stopped; it only counts as a trial with `counts`."""
        if job:
            self.rows.pop(job.key, None)
        self.paused.discard(result.number)
        if result.state == "PAUSED":
            self.paused.add(result.number)
        if counts and result.state not in OPEN:
            self._count(result)

    def _count(self, result: TrialResult) -> None:
        self.ended[result.state] += 1
        if result.epochs:
            self._spent.append(result.seconds)
        if result.state != "COMPLETE" or result.value is None:
            return
        if self.best is None or result.oriented > self.best.oriented:
            self.best = result

    @property
    def seconds_left(self) -> float | None:
        """The remaining seconds of the sweep, by its trials or its hours, whichever end first."""
        deadline = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        return min((left for left in (self._trials_left(), deadline) if left is not None), default=None)

    def _trials_left(self) -> float | None:
        """Return the seconds for the running and remaining trials, at the mean time so far, over all slots."""
        running = [row.seconds_left for row in self.rows.values()]
        known = [left for left in running if left is not None]
        typical = self._typical()
        if self.total is None or typical is None:
            return None
        waiting = max(0, self.total - sum(self.ended.values()) - len(self.paused) - len(self.rows))
        unknown = len(running) - len(known)
        return max([*known, (sum(known) + (waiting + unknown) * typical) / self._slots])

    def _typical(self) -> float | None:
        """Return the seconds per trial: the mean of the finished ones, else an estimate from the running ones."""
        if self._spent:
            return sum(self._spent) / len(self._spent)
        rows = [row for row in self.rows.values() if row.epochs]
        whole = [(row.seconds_left or 0) + sum(epoch.seconds for epoch in row.epochs) for row in rows]
        return sum(whole) / len(whole) if whole else None

    def summary(self) -> str:
        """Return e.g. `12 done, 3 pruned, 1 failed, 44 to go; best val macro_f1 0.8217 (trial 4); eta 38m`."""
        counts = [
            f"{self.ended['COMPLETE']} done",
            f"{self.ended['PRUNED']} pruned",
            f"{self.ended['FAILED']} failed",
        ]
        if self.paused:
            counts.append(f"{len(self.paused)} paused")
        if self.total is not None:
            counts.append(f"{max(0, self.total - sum(self.ended.values()) - len(self.paused))} to go")
        parts = [", ".join(counts)]
        if self.best:
            value = f"{self.split} {self.best.metric} {format_value(self.best.value)}"
            parts.append(f"best {value} (trial {self.best.number})")
        if left := self.seconds_left:
            parts.append(f"eta {format_duration(left)}")
        return "; ".join(parts)


def heading(one: Heading, results: Sequence[TrialResult]) -> Iterator[str]:
    """Return the lines of the heading, for a study with these earlier results."""
    return one.lines(sum(result.state not in OPEN for result in results), len(results))


def stamped(text: str, now: float | None = None) -> str:
    """Return a log line with date and time."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))} {text}"


def starting(row: RunningRow) -> str:
    """Return the line for the start of a run: `trial 7 starts on cuda:0: lr 0.00123, gamma 2.1`."""
    how = f"resumes after epoch {row.done}/{row.planned}" if row.epochs else "starts"
    where = f" on {row.slot}" if row.slot else ""
    return f"{row.job.label} {how}{where}{f': {row.parameters}' if row.job.params else ''}"


def line(board: SweepSummary, row: RunningRow) -> str:
    """Return the line for an epoch: `trial 7 epoch 5/12 val macro_f1 0.8123 (best 0.8217, trial 4) eta 38m`."""
    best = f" (best {format_value(board.best.value)}, trial {board.best.number})" if board.best else ""
    left = board.seconds_left
    eta = "" if left is None else f" eta {format_duration(left)}"
    value = f"{_of(row.job.recipe.metric, row.epochs[-1])} {format_value(row.values[-1])}"
    return f"{row.job.label} epoch {row.done}/{row.planned} {value}{best}{eta}"


def _of(metric: str, epoch: Epoch) -> str:
    """Return the split and name of a row's last value."""
    return f"{_split(epoch)} {'loss' if epoch.known(metric) is None else metric}"


def _split(epoch: Epoch) -> str:
    return "val" if epoch.val else "train"


def _written(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ending(job: Job, result: TrialResult, split: str) -> str:
    """Return the line for the outcome of a run."""
    if result.state == "FAILED":
        return f"{job.label} failed: {result.error or result.failure}"
    word = "done" if result.state == "COMPLETE" else result.state.lower()
    known = format_value(result.value, result.standard_error)
    value = f", {split} {result.metric} {known}" if result.value is not None else ""
    where = f" at epoch {result.epoch}" if value and result.epoch != result.epochs else ""
    length = "" if job.ensemble else f" after {result.epochs}/{result.planned} epochs"
    return f"{job.label} {word}{length}{value}{where}"


def batches(row: RunningRow, bar: str = "") -> str:
    """Return the position in an epoch, such as `train 62%`, after a bar of the two characters `bar` if given."""
    if (at := row.at) is None:
        return "loading" if row.loads else ""
    full = BAR_WIDTH * at.done // at.total
    drawn = f"{bar[0] * full}{bar[1] * (BAR_WIDTH - full)} " if bar else ""
    return f"{drawn}{at.split:5} {at.done / at.total:.0%}"


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """Return the last `width` values as blocks, whose heights span the least to the greatest value."""
    known = [value for value in values if value == value][-width:]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(blocks[min(len(blocks) - 1, int((value - low) / span * len(blocks)))] for value in known)
