"""Several observers as one: each is told everything, and the trouble of one is its own."""

import pytest

from sweeper.engine.observers import Observers
from sweeper.store.paths import StudyFolder
from sweeper.trial import Closing
from tests.support.records import curve, end, epoch, job
from tests.support.studies import Seen


class Broken(Seen):
    """An observer that fails at one word."""

    def __init__(self, word: str, error: Exception) -> None:
        super().__init__()
        self.word, self.error = word, error

    def say(self, *words: object) -> None:
        super().say(*words)
        if words[0] == self.word:
            raise self.error


def tell(observers: Observers, study: StudyFolder) -> None:
    made = job(study, 0)
    made.folder.mkdir(parents=True)
    observers.started(made, "cpu")
    observers.epoch(made, epoch(0, 0.5), None)
    observers.note("finishing")
    observers.ended(made, end(made, curve(made), "COMPLETE"))
    observers.closed(Closing("COMPLETE"))


ALL = ["start 0 cpu", "epoch 0 1", "note finishing", "end 0 COMPLETE", "closed COMPLETE"]


@pytest.mark.parametrize("error", [OSError("no space left"), ValueError("bug"), TypeError("bug")])
@pytest.mark.parametrize(("word", "heard"), [("start", 1), ("epoch", 2), ("note", 3), ("end", 4), ("closed", 5)])
def test_an_observer_that_fails_is_told_no_more_but_the_closing_and_costs_the_others_nothing(
    tmp_path, word, heard, error
):
    said, before, broken, after = [], Seen(), Broken(word, error), Seen()
    tell(Observers([before, broken, after], said.append), StudyFolder(tmp_path / "question"))
    assert before.words == after.words == ALL
    assert broken.words == list(dict.fromkeys([*ALL[:heard], ALL[-1]]))
    (line,) = said
    assert str(error) in line
    assert line.endswith("Broken failed and is switched off; training continues")


class Waiting(Seen):
    """An observer whose closing somebody does not wait for."""

    def closed(self, closing: Closing) -> None:
        super().closed(closing)
        raise KeyboardInterrupt


class Hurried(Seen):
    def closed(self, closing: Closing) -> None:
        self.say("closed", closing.hurried)


def test_who_does_not_wait_for_one_has_the_rest_closed_in_a_hurry():
    first, waiting, last = Hurried(), Waiting(), Hurried()
    with pytest.raises(KeyboardInterrupt):
        Observers([first, waiting, last], print).closed(Closing("COMPLETE"))
    assert (first.words, waiting.words, last.words) == (["closed False"], ["closed COMPLETE"], ["closed True"])
