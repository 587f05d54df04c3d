"""The watchdog: what it counts, what it learns, and when it bites."""

import math

import pytest

from sweeper.errors import UserError
from sweeper.executors.watchdog import MAX_POLL_INTERVAL_S, AwakeClock, HangLimits, Watch
from tests.support.records import epoch
from trainers.config import TrainConfig

SMALL, LARGE = TrainConfig(backbone="a"), TrainConfig(backbone="a", image_size=384)
PATIENCE = HangLimits(silence=60, unknown=1000, floor=100, factor=10)


def limit(watch: Watch, train: TrainConfig = SMALL) -> int:
    """The first whole second of training that is too much."""
    return next(second for second in range(10**6) if watch.trouble(train, 0, second)) - 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The machine's clocks, which the test moves: the monotonic one, and the time of day."""
    hands = [100.0, 0.0]
    monkeypatch.setattr("time.monotonic", lambda: hands[0])
    monkeypatch.setattr("time.time", lambda: hands[1])
    return hands


def test_of_a_gap_between_two_looks_only_the_first_seconds_count(clock):
    awake = AwakeClock()
    for step in (0.25, 1.0, 3600.0, 0.5):
        clock[0] += step
        awake.now()
    assert awake.now() == 0.25 + 1.0 + MAX_POLL_INTERVAL_S + 0.5


@pytest.mark.parametrize("jump", [-1e9, 86400.0, math.nan])
def test_setting_the_time_of_day_counts_for_nothing(clock, jump):
    awake = AwakeClock()
    clock[0] += 0.5
    before = awake.now()
    clock[1] += jump
    assert awake.now() == before


def test_a_worker_that_says_nothing_is_hung_whatever_it_trains():
    watch = Watch(PATIENCE)
    assert watch.trouble(SMALL, 60, 60) is None
    assert watch.trouble(SMALL, 61, 61) == "the worker sent nothing for 1m"


def test_before_anything_was_measured_the_bound_is_generous():
    assert limit(Watch(PATIENCE)) == 1000


def test_an_epoch_may_take_many_times_the_longest_of_its_backbone_and_image_size():
    watch = Watch(PATIENCE)
    for seconds in (20.0, 50.0, 30.0):
        watch.epoch(SMALL, epoch(0, 0.5, seconds=seconds), seconds + 1)
    assert limit(watch) == 510
    assert limit(watch, LARGE) == 1000
    said = watch.trouble(SMALL, 0, 511)
    assert said == "training hangs: no epoch finished in 8m (the longest of a took 51s)"


def test_short_epochs_may_take_a_while_nevertheless():
    watch = Watch(PATIENCE)
    watch.epoch(SMALL, epoch(0, 0.5, seconds=1.0), 1.0)
    assert limit(watch) == 100


def test_an_epoch_out_of_a_checkpoint_teaches_nothing():
    """It took its seconds on another day, perhaps on another machine."""
    watch = Watch(PATIENCE)
    watch.epoch(SMALL, epoch(0, 0.5, seconds=10.0), 0.1)
    assert limit(watch) == 1000


def test_the_environment_stretches_every_bound(monkeypatch):
    monkeypatch.setenv("SWEEP_PATIENCE", "2")
    usual = HangLimits()
    assert HangLimits.read() == HangLimits(2 * usual.silence, 2 * usual.unknown, 2 * usual.floor, 2 * usual.factor)


@pytest.mark.parametrize("given", ["long", "0", "-1", "nan"])
def test_a_patience_that_is_no_number_is_said(monkeypatch, given):
    monkeypatch.setenv("SWEEP_PATIENCE", given)
    with pytest.raises(UserError, match="is not a number above 0"):
        HangLimits.read()
