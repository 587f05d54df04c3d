"""Threads that share the work on a batch are waited for, also where one of them fails."""

from threading import Event

import pytest

from trainers.support.threads import share


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
