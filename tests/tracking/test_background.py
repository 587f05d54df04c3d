"""The thread that carries news: order, tries, and how little its callers wait."""

import threading

import pytest

from sweeper.tracking.background import BackgroundQueue


def test_errands_are_done_in_the_order_asked():
    done: list[str] = []
    sender = BackgroundQueue(done.append, print)
    for task in "abc":
        sender.submit(task)
    assert sender.drain(10) == 0
    assert done == ["a", "b", "c"]


def test_asking_twice_before_it_is_done_is_asking_once():
    done, gate = [], threading.Event()

    def do(task: str) -> None:
        gate.wait(10)
        done.append(task)

    sender = BackgroundQueue(do, print)
    for task in ("first", "again", "again", "again"):
        sender.submit(task)
    gate.set()
    sender.drain(10)
    assert done == ["first", "again"]


def test_an_errand_that_fails_is_tried_again_before_the_others():
    tries: list[str] = []

    def do(task: str) -> None:
        tries.append(task)
        if len(tries) < 3:
            raise OSError("down")

    failures: list[Exception] = []
    ended = threading.Event()
    sender = BackgroundQueue(lambda task: (do(task), task == "b" and ended.set()), failures.append, pause=0.01)
    sender.submit("a")
    sender.submit("b")
    assert ended.wait(10)
    assert sender.drain(10) == 0
    assert (tries, len(failures)) == (["a", "a", "a", "b"], 2)


def test_finishing_tries_what_failed_once_more_and_tells_what_is_left():
    tries: list[str] = []
    failed = threading.Event()

    def do(task: str) -> None:
        tries.append(task)
        raise OSError("down")

    sender = BackgroundQueue(do, lambda _: failed.set(), pause=1000)
    sender.submit("a")
    assert failed.wait(10)
    sender.submit("b")
    assert sender.drain(10) == 2
    assert tries == ["a", "a"]


def test_finishing_waits_no_longer_than_it_is_told():
    gate = threading.Event()
    sender = BackgroundQueue(lambda _: bool(gate.wait(30)) or None, print)
    sender.submit("stuck")
    assert sender.drain(0.05) == 1
    assert sender.busy > 0
    gate.set()


@pytest.mark.parametrize("asked", [0, 1])
def test_finishing_with_nothing_left_returns_at_once(asked):
    sender = BackgroundQueue(lambda _: None, print)
    for _ in range(asked):
        sender.submit("a")
    assert sender.drain(10) == 0
    assert sender.busy == 0
