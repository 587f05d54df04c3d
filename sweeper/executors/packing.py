"""Packing: how many trials a device takes at once, decided from the memory and the pace of the first ones."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainers.config import Recipe
from trainers.epoch import Epoch

SHARE = 0.9  # of a device's memory that trials may fill together
SLACK = 1.1  # memory of the next trial over the largest so far
CONTEXT = 0.6  # GiB that a process takes on a GPU besides what torch takes there
GAIN = 1.05  # one trial more must bring this much more images a second, all together
ENOUGH = 2  # epochs alone before one trial more is tried: the first of a process is a slow one
MAX_UNDECIDED_TRIALS = 8  # trials that end without a verdict on so many side by side

Kind = tuple[object, ...]


def kind(recipe: Recipe) -> Kind:
    """What decides the pace of a trial: backbone, image and batch size; and what makes its epochs differ."""
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
    """A running trial; `since` is the state of its device when its present epoch began."""

    kind: Kind
    since: int
    began: float = field(default_factory=time.time)
    share: float | None = None  # its pace, as a share of what its kind reaches alone


@dataclass
class _Device:
    room: float
    most: int
    allowed: int = 1
    settled: bool = False
    peak: float = 0.0
    changes: int = 0  # starts and ends of trials so far
    measured: int = 0  # epochs of a trial alone
    undecided: int = 0  # trials that ended since one more was allowed
    gain: float = 1.0  # images a second of all trials together, over those of one alone
    alone: dict[Kind, float] = field(default_factory=dict)
    running: dict[int, _Trial] = field(default_factory=dict)


class Packing:
    """How many trials each device may run now: first one, then one more while it fits and all together gain.

    A trial's pace counts only over epochs during which the same trials ran beside it, against the pace of the same
    backbone, image and batch size alone. One more is tried when all that run have such a figure; where it does not
    bring 5 % more, or nothing can be told for long, the device goes back and stays there. `room` is GiB of free
    memory by device, None where it is unknown: then nothing is packed.
    """

    def __init__(self, room: Mapping[str, float | None], most: Mapping[str, int]) -> None:
        self._devices = {home: _Device(free or 0.0, most[home], settled=not free) for home, free in room.items()}

    def allowed(self, home: str) -> int:
        """Trials that this device may run side by side."""
        return self._devices[home].allowed

    def alone(self, home: str) -> bool:
        """Whether it is settled that this device runs one trial at a time."""
        device = self._devices[home]
        return device.settled and device.allowed == 1

    def began(self, home: str, trial: int, recipe: Recipe) -> None:
        """Note that a trial began on this device."""
        device = self._devices[home]
        device.changes += 1
        device.running[trial] = _Trial(kind(recipe), device.changes)

    def crowded(self, home: str) -> bool:
        """Whether several trials run there now."""
        return len(self._devices[home].running) > 1

    def ended(self, home: str, trial: int, *, out_of_memory: bool = False) -> None:
        """Note that a trial ended; one that ran out of memory beside others ends the packing."""
        device = self._devices[home]
        if out_of_memory and self.crowded(home):
            device.allowed, device.settled = 1, True
        del device.running[trial]
        device.changes += 1
        device.undecided += 1
        if device.undecided >= MAX_UNDECIDED_TRIALS and device.allowed > 1 and not device.settled:
            device.allowed, device.settled = device.allowed - 1, True

    def epoch(self, home: str, trial: int, epoch: Epoch) -> None:
        """Learn from an epoch: the memory it peaked at, and its pace if the same trials ran beside it all along.

        One that was trained in an earlier call, and is only told again, says nothing.
        """
        device = self._devices[home]
        one = device.running[trial]
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
    """Allow one trial more, if it fits."""
    device.undecided = 0
    if device.allowed < device.most and _fits(device, device.allowed + 1):
        device.allowed += 1
    else:
        device.settled = True


def _shrink(device: _Device) -> None:
    """Allow fewer from now on, where a larger trial than those before has shown that so many do not fit."""
    while device.allowed > 1 and not _fits(device, device.allowed):
        device.allowed, device.settled = device.allowed - 1, True


def _weigh(device: _Device) -> None:
    """Once every running trial that can be compared has been: one more, or back by one for good."""
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
