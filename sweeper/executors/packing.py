"""Packing: how many trials a device runs at once, decided from the memory and the pace of the first ones."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainers.config import Recipe
from trainers.epoch import Epoch

SHARE = 0.9  # share of a device's memory that all trials together may fill
SLACK = 1.1  # assumed memory of the next trial, relative to the largest so far
CONTEXT = 0.6  # GiB that a process takes on a GPU besides torch's own
GAIN = 1.05  # factor by which one more trial must raise the images per second of all together
ENOUGH = 2  # epochs alone before one more trial is tried: the first epoch of a process is slow
MAX_UNDECIDED_TRIALS = 8  # trials that may end before there is a verdict on the present number side by side

Kind = tuple[object, ...]


def kind(recipe: Recipe) -> Kind:
    """Return the settings that decide a trial's pace: backbone, image and batch size, and any that vary by epoch."""
    train = recipe.train
    return (
        train.backbone,
        train.image_size,
        train.batch_size,
        train.progressive_resizing.model_dump_json(),
        train.freeze.model_dump_json(),
    )


@dataclass
class _Trial:
    """A running trial; `since` is the device's count of `changes` when the current epoch started."""

    kind: Kind
    since: int
    began: float = field(default_factory=time.time)
    share: float | None = None  # its pace, relative to that of its kind alone on the device


@dataclass
class _Device:
    room: float
    most: int
    allowed: int = 1
    settled: bool = False
    peak: float = 0.0
    changes: int = 0  # starts and ends of trials so far
    measured: int = 0  # epochs of a trial alone on the device
    undecided: int = 0  # trials that ended since one more was allowed
    gain: float = 1.0  # images per second of all trials together, relative to one alone
    alone: dict[Kind, float] = field(default_factory=dict)
    running: dict[str, _Trial] = field(default_factory=dict)


class Packing:
    """Decides how many trials each device may run: one at first, then one more as long as it fits and total
    throughput grows.

    A trial's pace counts only over epochs during which the same trials ran beside it, and relative to the pace of the
    same backbone, image and batch size alone. One more trial is tried once every running one has such a figure. If it
    does not bring 5 % more, or there is no verdict for long, the device goes back by one and stays there. `room` is
    the free memory per device in GiB; where it is None, unknown, nothing is packed.
    """

    def __init__(self, room: Mapping[str, float | None], most: Mapping[str, int]) -> None:
        self._devices = {home: _Device(free or 0.0, most[home], settled=not free) for home, free in room.items()}

    def allowed(self, home: str) -> int:
        """Return the number of trials that this device may run side by side."""
        return self._devices[home].allowed

    def alone(self, home: str) -> bool:
        """True if it is settled that this device runs one trial at a time."""
        device = self._devices[home]
        return device.settled and device.allowed == 1

    def began(self, home: str, key: str, recipe: Recipe) -> None:
        """Record that a trial started on this device."""
        device = self._devices[home]
        device.changes += 1
        device.running[key] = _Trial(kind(recipe), device.changes)

    def crowded(self, home: str) -> bool:
        """True if several trials run on this device now."""
        return len(self._devices[home].running) > 1

    def ended(self, home: str, key: str, *, out_of_memory: bool = False) -> None:
        """Record that a trial ended; one that ran out of memory beside others ends the packing."""
        device = self._devices[home]
        if out_of_memory and self.crowded(home):
            device.allowed, device.settled = 1, True
        del device.running[key]
        device.changes += 1
        device.undecided += 1
        if device.undecided >= MAX_UNDECIDED_TRIALS and device.allowed > 1 and not device.settled:
            device.allowed, device.settled = device.allowed - 1, True

    def epoch(self, home: str, key: str, epoch: Epoch) -> None:
        """Learn from an epoch: its peak memory, and its pace if the same trials ran beside it throughout.

        An epoch that was trained in an earlier session, and is only reported again, is ignored.
        """
        device = self._devices[home]
        one = device.running[key]
        if epoch.time - epoch.seconds < one.began:
            return
        device.peak = max(device.peak, epoch.peak_memory_gb)
        _shrink(device)
        whole, one.since = one.since == device.changes, device.changes
        if device.settled or not whole or len(device.running) != device.allowed:
            return
        if device.allowed == 1:
            device.alone[one.kind] = max(device.alone.get(one.kind, 0.0), epoch.images_per_second)
            device.measured += 1
            if device.measured >= ENOUGH:
                _grow(device)
        elif one.kind in device.alone:
            one.share = epoch.images_per_second / device.alone[one.kind]
            _weigh(device)


def _fits(device: _Device, trials: int) -> bool:
    return trials * (SLACK * device.peak + CONTEXT) <= SHARE * device.room


def _grow(device: _Device) -> None:
    """Allow one more trial if it fits; otherwise settle."""
    device.undecided = 0
    if device.allowed < device.most and _fits(device, device.allowed + 1):
        device.allowed += 1
    else:
        device.settled = True


def _shrink(device: _Device) -> None:
    """Allow fewer from now on if a trial larger than all before has shown that the present number does not fit."""
    while device.allowed > 1 and not _fits(device, device.allowed):
        device.allowed, device.settled = device.allowed - 1, True


def _weigh(device: _Device) -> None:
    """Once every comparable running trial has a figure, allow one more, or go back by one permanently."""
    known = [one for one in device.running.values() if one.kind in device.alone]
    shares = [one.share for one in known if one.share is not None]
    if len(shares) < len(known):
        return
    gain = len(device.running) * sum(shares) / len(shares)
    if gain < GAIN * device.gain:
        device.allowed, device.settled = device.allowed - 1, True
        return
    device.gain = gain
    for one in device.running.values():
        one.share = None
    _grow(device)
