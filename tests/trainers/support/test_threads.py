"""Threads that share the work on a batch are waited for, also where one fails; one writes checkpoints."""

import time
from threading import Event

import pytest

from trainers.support.threads import CHECKPOINT_INTERVAL_S, INTERVAL_VARIABLE, CheckpointWriter, share


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_part_is_done_once(threads):
    done = list[int]()
    share(done.append, threads)
    assert sorted(done) == list(range(threads))


def test_a_failure_is_raised_once_the_others_have_ended():
    failed, ended = Event(), Event()

    def work(number: int) -> None:
        if number == 0:
            failed.set()
            raise ValueError("the first")
        failed.wait(10)
        ended.set()

    with pytest.raises(ValueError, match="the first"):
        share(work, 2)
    assert ended.is_set()


# ------------------------------------------------------------------------------------ checkpoints beside training
def fail() -> None:
    raise OSError("no room")


def test_a_checkpoint_is_due_where_another_epoch_would_make_it_too_late(monkeypatch):
    writer = CheckpointWriter()
    assert not writer.is_due(1.0)
    assert writer.is_due(CHECKPOINT_INTERVAL_S)
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")
    assert CheckpointWriter().is_due(0.0)


def test_the_clock_of_the_next_checkpoint_starts_with_each(monkeypatch):
    monkeypatch.setenv(INTERVAL_VARIABLE, "0.2")
    with CheckpointWriter() as writer:
        time.sleep(0.3)
        assert writer.is_due(0.0)
        writer.start(lambda: None)
        assert not writer.is_due(0.0)


def test_the_caller_goes_on_while_a_checkpoint_is_written_and_waits_when_asked_to():
    go, done = Event(), list[str]()

    def write() -> None:
        go.wait(10)
        done.append("written")

    with CheckpointWriter() as writer:
        writer.start(write)
        writer.check()
        assert done == []
        go.set()
        writer.wait()
        assert done == ["written"]


@pytest.mark.parametrize("ask", [CheckpointWriter.wait, CheckpointWriter.check])
def test_an_error_of_writing_is_raised_by_the_next_call_once(ask):
    with CheckpointWriter() as writer:
        writer.start(fail)
        time.sleep(0.1)
        with pytest.raises(OSError, match="no room"):
            ask(writer)
        writer.wait()


def test_an_error_of_writing_that_nobody_asked_for_is_raised_at_the_end():
    with pytest.raises(OSError, match="no room"), CheckpointWriter() as writer:
        writer.start(fail)


def test_an_error_of_training_comes_before_one_of_writing_which_is_in_the_log(caplog):
    def diverge() -> None:
        with CheckpointWriter() as writer:
            writer.start(fail)
            raise ValueError("nan")

    with pytest.raises(ValueError, match="nan"):
        diverge()
    assert "no room" in caplog.text
