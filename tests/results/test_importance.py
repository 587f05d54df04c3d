"""What mattered: the line, and importance.json."""

import json

import pytest

from sweeper.results import importance
from sweeper.search import importance as computed
from sweeper.store import study_file
from sweeper.store.importance import MIN_TRIALS
from sweeper.store.paths import StudyFolder
from tests.search.test_importance import ASKED, trials

TRAIN = {"backbone": "b", "layers": ASKED["layers"], "schedule": ASKED["schedule"]} | {
    "optimizer": {"lr": ASKED["optimizer.lr"]},
    "loss": {"gamma": ASKED["loss.gamma"]},
}


@pytest.fixture
def study(monkeypatch) -> StudyFolder:
    monkeypatch.setattr(computed, "RESAMPLES", 5)
    return asking(TRAIN)


def asking(train: dict[str, object]) -> StudyFolder:
    folder = StudyFolder.named("focal_weights")
    folder.root.mkdir(parents=True, exist_ok=True)
    identity = {"data": {}, "metric": "overall_accuracy", "train": train}
    document = {"schema_version": study_file.SCHEMA_VERSION, "study": folder.name, "identity": identity}
    folder.study_file.write_text(json.dumps(document))
    return folder


def test_the_line_names_what_mattered_with_its_error(study):
    found = importance.importance(study, trials(40, "loss.gamma"))
    assert found.line.startswith("what mattered: gamma ")
    assert found.in_full.line.startswith("what mattered: loss.gamma ")
    assert found.shares[0].name == "loss.gamma"
    assert " % ±" in found.line
    assert len(found.shares) == 4


def test_a_value_is_called_by_the_shortest_name_that_no_other_has_as_in_the_leaderboard(study):
    asked = json.loads(json.dumps(TRAIN))
    folder = asking(asked | {"head": {"gamma": asked["loss"]["gamma"]}})
    found = importance.importance(folder, trials(40, "loss.gamma"))
    assert {one.name: one.label for one in found.shares} == {
        name: name if name == "loss.gamma" else name.rpartition(".")[2] for name in ASKED
    }


def test_it_is_kept_until_the_record_changes(study, monkeypatch):
    results = trials(40, "loss.gamma")
    found = importance.importance(study, results)
    monkeypatch.setattr(computed, "shares", lambda *_: pytest.fail("computed again"))
    assert importance.importance(study, results) == found
    monkeypatch.undo()
    changed = [results[0].model_copy(update={"state": "PRUNED"}), *results[1:]]
    assert importance.importance(study, changed).pruned == 1


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1}', "[]"])
def test_a_damaged_file_is_computed_again(study, text):
    study.importance.write_text(text)
    assert importance.importance(study, trials(40, "loss.gamma")).shares


def test_below_a_number_of_trials_nothing_is_said(study):
    few = importance.importance(study, trials(MIN_TRIALS - 1, "loss.gamma"))
    assert few.line == (f"what mattered: too few trials to say ({MIN_TRIALS - 1} of the {MIN_TRIALS} needed)")
    assert not few.document()["enough"]


def test_nor_where_hardly_any_completed(study):
    results = [one.model_copy(update={"state": "PRUNED"}) for one in trials(60, "loss.gamma")]
    few = importance.importance(study, [*results[4:], *trials(4, "loss.gamma")])
    assert few.line.endswith("and at least 5 must complete)")


def test_only_the_first_is_named_where_the_others_are_smaller_than_their_error(study):
    found = importance.importance(study, trials(40, "loss.gamma"))
    first, *others = found.shares
    unsure = [one.model_copy(update={"share": 0.22, "error": 0.25}) for one in others]
    assert found.model_copy(update={"shares": (first, *unsure)}).named == [first]
    sure = [one.model_copy(update={"share": 0.1, "error": 0.05}) for one in others]
    assert found.model_copy(update={"shares": (first, *sure)}).named == [first, *sure[:2]]


def test_equally_good_trials_tell_nothing(study):
    same = [one.model_copy(update={"value": 0.5}) for one in trials(40, "loss.gamma")]
    assert importance.importance(study, same).line.endswith("nothing separates the best trials from the others")


def test_a_study_with_fewer_than_two_open_values_has_none():
    assert importance.importance(asking({"layers": ASKED["layers"]}), trials(40, "layers")) is None
    assert importance.importance(asking({}), []) is None
