"""What a person wants to know of a running sweep, in figures and short words. How it is drawn is no matter here."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeper.text import format_duration, format_value
from sweeper.trial import OPEN, Job, TrialResult
from trainers.epoch import Epoch

BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"


@dataclass
class RunningRow:
    """A running trial."""

    job: Job
    slot: str
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def planned(self) -> int:
        return self.job.stop_after or self.job.recipe.train.epochs

    @property
    def done(self) -> int:
        """Epochs done, those of an earlier sweep included."""
        return self.epochs[-1].number if self.epochs else 0

    @property
    def values(self) -> list[float]:
        """The metric after each epoch; without val that of train, or train's loss."""
        known = [(epoch.known(self.job.recipe.metric), epoch.train.loss) for epoch in self.epochs]
        return [loss if value is None else value for value, loss in known]

    @property
    def seconds_left(self) -> float | None:
        """By the mean of the last three epochs; None before there is one."""
        if not self.epochs:
            return None
        recent = [epoch.seconds for epoch in self.epochs[-3:]]
        return sum(recent) / len(recent) * (self.planned - self.done)


@dataclass
class SweepSummary:
    """The sweep: what runs, what has ended, what is best, how long it will take."""

    rows: dict[int, RunningRow] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    paused: set[int] = field(default_factory=set)
    total: int | None = None
    best: TrialResult | None = None
    _spent: list[float] = field(default_factory=list)
    _slots: int = 1

    def plan(self, total: int | None, results: Sequence[TrialResult]) -> None:
        """The trials planned in all, and those of earlier sweeps; their open ones run again."""
        self.total = total
        for result in results:
            self.end(result)

    def start(self, job: Job, slot: str) -> None:
        self.rows[job.trial] = RunningRow(job, slot)
        self.paused.discard(job.trial)
        self._slots = max(self._slots, len(self.rows))

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> RunningRow:
        row = self.rows.setdefault(job.trial, RunningRow(job, ""))
        row.epochs.append(epoch)
        self.best = best or self.best
        return row

    def end(self, result: TrialResult) -> None:
        self.rows.pop(result.number, None)
        self.paused.discard(result.number)
        if result.state == "PAUSED":
            self.paused.add(result.number)
        if result.state not in OPEN:
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
        """Of the whole sweep: what runs, and the trials to come at the mean time of those so far, over all slots."""
        running = [row.seconds_left for row in self.rows.values()]
        known = [left for left in running if left is not None]
        typical = self._typical()
        if self.total is None or typical is None:
            return None
        waiting = max(0, self.total - sum(self.ended.values()) - len(self.paused) - len(self.rows))
        unknown = len(running) - len(known)
        return max([*known, (sum(known) + (waiting + unknown) * typical) / self._slots])

    def _typical(self) -> float | None:
        """Seconds a trial takes: the mean of those that ended, else what the running ones will."""
        if self._spent:
            return sum(self._spent) / len(self._spent)
        rows = [row for row in self.rows.values() if row.epochs]
        whole = [(row.seconds_left or 0) + sum(epoch.seconds for epoch in row.epochs) for row in rows]
        return sum(whole) / len(whole) if whole else None

    def summary(self) -> str:
        """Such as `12 done, 3 pruned, 1 failed, 44 to go; best 0.8217 (trial 4); eta 38m`, and paused ones if any."""
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
            parts.append(f"best {format_value(self.best.value)} (trial {self.best.number})")
        if (left := self.seconds_left) is not None:
            parts.append(f"eta {format_duration(left)}")
        return "; ".join(parts)


def line(board: SweepSummary, row: RunningRow, now: float | None = None) -> str:
    """One epoch: 12:01:05 trial 7 epoch 5/12 overall_accuracy 0.8123 (best 0.8217, trial 4) eta 38m."""
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    best = f" (best {format_value(board.best.value)}, trial {board.best.number})" if board.best else ""
    left = board.seconds_left
    eta = "" if left is None else f" eta {format_duration(left)}"
    value = f"{_of(row.job.recipe.metric, row.epochs[-1])} {format_value(row.values[-1])}"
    return f"{clock} trial {row.job.trial} epoch {row.done}/{row.planned} {value}{best}{eta}"


def _of(metric: str, epoch: Epoch) -> str:
    """What a row's last value is a value of."""
    if epoch.val:
        return metric
    return "train loss" if epoch.known(metric) is None else f"train {metric}"


def ending(result: TrialResult, now: float | None = None) -> str:
    """The end of a trial as one plain line."""
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    if result.state == "FAILED":
        return f"{clock} trial {result.number} failed: {result.error or result.failure}"
    word = "done" if result.state == "COMPLETE" else result.state.lower()
    value = f", {result.metric} {format_value(result.value)}" if result.value is not None else ""
    where = f" at epoch {result.epoch}" if value and result.epoch != result.epochs else ""
    return f"{clock} trial {result.number} {word} after {result.epochs}/{result.planned} epochs{value}{where}"


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """The last `width` values as blocks of a height between their least and their greatest."""
    known = [value for value in values if value == value][-width:]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(blocks[min(len(blocks) - 1, int((value - low) / span * len(blocks)))] for value in known)
