"""The columns of a leaderboard: short names, what varies, metrics, ways out."""

import csv
import io

import pytest

from sweeper.errors import UserError
from sweeper.results import columns
from sweeper.store import ranking
from sweeper.store.importance import Importance, Share
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.trial import TrialResult
from tests.support.records import begin, curve, end, job


@pytest.fixture
def study() -> StudyFolder:
    return StudyFolder.named("focal_weights")


def result(number: int, value: float | None = 0.5, **changes) -> TrialResult:
    fields = {"state": "COMPLETE", "metric": "macro_f1", "planned": 3, "epochs": 3, "epoch": 3, "backbone": "a"}
    return TrialResult(number=number, value=value, **(fields | changes))


def board(results: list[TrialResult], study: StudyFolder) -> columns.Board:
    return columns.board(Ranking.of(results, study))


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["optimizer.lr", "loss.gamma"], ["lr", "gamma"]),
        (["optimizer.lr", "head.lr"], ["optimizer.lr", "head.lr"]),
        (["loss", "loss.focal.gamma", "loss.dice.gamma"], ["loss", "focal.gamma", "dice.gamma"]),
        (["gamma", "loss.gamma"], ["gamma", "loss.gamma"]),
        (["train.epochs", "x.state"], ["train.epochs", "x.state"]),
        (["loss.category_weights.sleeve length"], ["sleeve length"]),
    ],
)
def test_names_are_shortened_from_the_left_while_they_are_unique(names, short):
    made = ranking.short_names(names)
    assert [made[name] for name in names] == short
    assert all(columns.full_name(made[name], names, "column") == name for name in names)


def test_a_name_may_be_written_as_in_set():
    assert columns.full_name("train.loss.gamma", ["loss.gamma"], "column") == "loss.gamma"
    assert columns.full_name("epochs", ["epochs", "train.epochs"], "column") == "epochs"


def test_an_unknown_name_is_refused_with_the_nearest_and_a_short_one_that_two_have():
    names = ["optimizer.lr", "head.lr", "loss.gamma"]
    with pytest.raises(UserError, match="there is no column 'gama'") as caught:
        columns.full_name("gama", names, "column")
    assert caught.value.help == "did you mean 'loss.gamma'?"
    with pytest.raises(UserError, match=r"'lr' is ambiguous: optimizer\.lr or head\.lr"):
        columns.full_name("lr", names, "column")


def test_what_varies_stands_behind_the_value_and_what_is_fixed_at_the_end(study):
    results = [result(n, 0.5 + n / 10, params={"optimizer.lr": n / 10, "loss.gamma": 2.0}) for n in range(3)]
    assert board(results, study).headers == ["rank", "trial", "value", "lr", "state", "epochs", "minutes", "backbone"]


def test_a_backbone_that_varies_is_an_open_value_and_what_mattered_comes_first(study):
    params = [{"optimizer.lr": n / 10, "loss.gamma": n} for n in range(2)]
    results = [result(n, backbone="ab"[n], params=params[n]) for n in range(2)]
    gamma = Importance(record="", completed=2, pruned=0, shares=(Share(name="loss.gamma", share=1.0, error=0.0),))
    made = columns.board(Ranking.of(results, study), gamma)
    assert made.headers[3:] == ["gamma", "backbone", "lr", "state", "epochs", "minutes"]


def recorded(study: StudyFolder, *tops: float) -> list[TrialResult]:
    found = []
    for number, top in enumerate(tops):
        started = begin(job(study, number))
        found.append(end(started, curve(started, top), "COMPLETE"))
    return found


def test_trials_are_ranked_by_any_metric_of_the_record(study):
    results = recorded(study, 0.5, 0.8)
    for metric in ("macro_f1", "train.macro_f1", "sleeve length"):
        ranked = columns.by(metric, study, results)
        assert Ranking.of(ranked, study).rows[0]["trial"] == 1
    assert ranked[1].value == pytest.approx(results[1].value - 0.01)
    assert columns.by("train.macro_f1", study, results)[0].metric == "macro_f1"
    assert columns.by("loss", study, results)[0].minimize
    with pytest.raises(UserError, match="there is no metric 'makro_f1'") as caught:
        columns.by("makro_f1", study, results)
    assert caught.value.help == "did you mean 'macro_f1'?"


def test_a_number_is_no_name_of_a_parameter():
    assert ranking.short_names(["optimizer.lr", "augment.scale.0"]) == {
        "optimizer.lr": "lr",
        "augment.scale.0": "scale.0",
    }


def test_columns_that_a_person_names(study):
    results = recorded(study, 0.5, 0.8)
    known = columns.metrics(study, results)
    ranking, names = columns.chosen(Ranking.of(results, study), "trial, gamma,macro_f1,minutes,material", known)
    assert names == ["trial", "loss.gamma", "macro_f1", "minutes", "material"]
    assert columns.shown(ranking, names).headers == ["trial", "gamma", "macro_f1", "minutes", "material"]
    rows = list(csv.DictReader(io.StringIO(columns.as_csv(ranking, names))))
    assert [row["trial"] for row in rows] == ["1", "0"]
    assert float(rows[0]["macro_f1"]) == pytest.approx(results[1].value - 0.08, abs=1e-5)


def test_markdown_escapes_what_parts_its_cells(study):
    made = board([result(n, params={"a": "x|y" if n else "z"}) for n in range(2)], study).markdown()
    assert made[0] == "| rank | trial | value | a | state | epochs | minutes | backbone |"
    assert "x\\|y" in made[3]
