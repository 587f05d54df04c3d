"""Studies side by side: as tables, and on a page."""

import json
from typing import Any

import pytest

from sweeper.errors import UserError
from sweeper.results import comparison, page
from sweeper.store import paths, records, studies, study_file
from sweeper.store.paths import StudyFolder
from sweeper.trial import TrialResult
from tests.support.records import begin, curve, end, job


def study(name: str, tops: tuple[float, ...], *, pruned: int | None = None, **identity: Any) -> StudyFolder:
    folder = StudyFolder.named(name)
    folder.root.mkdir(parents=True)
    asked = {"data": {"root": "x"}, "metric": "overall_accuracy", "train": {"epochs": 20}} | identity
    document = {"schema_version": study_file.SCHEMA_VERSION, "study": name, "identity": asked}
    folder.study_file.write_text(json.dumps(document))
    for number, top in enumerate(tops):
        started = begin(job(folder, number, epochs=20, metric=asked["metric"]))
        end(started, curve(started, top), "PRUNED" if number == pruned else "COMPLETE")
    return folder


def test_what_they_ask_how_they_went_and_who_won():
    a = study("a", (0.5, 0.9, 0.7, 0.8), pruned=1)
    b = study("b", (0.6, 0.4), train={"epochs": {"int": [5, 20]}})
    made = comparison.comparison(a, b)
    assert made.differences(made.sides[1]) == ["train.epochs: 20 -> int [5, 20]"]
    (title, headers, rows), (_, _, winners) = made.tables()
    assert (title, headers) == ("best overall_accuracy so far", ["trials", "a", "b"])
    assert rows == [["1", "0.5000", "0.6000"], ["2", "0.5000", "0.6000"], ["4", "0.8000", ""]]
    assert winners[0] == ["trial", "3", "0"]
    assert ["schedule", "cosine", "cosine"] in winners


def test_defaults_of_each_backbone_are_compared_with_the_single_ones_of_the_other():
    both = {"choice": [["small", "small"], ["large", "large"]]}
    plain = {"backbone": "small", "tta": {"flip": True, "crops": 1}, "loss": {"name": "focal"}, "rates": {"a": 1}}
    alike = {"backbone": both, "tta": dict.fromkeys(("small", "large"), plain["tta"]), "rates": {"a": 1}}
    unlike = {
        name: {"name": "focal" if name == "small" else "dice"} for name in ("small", "large from random weights")
    }
    a, b = study("a", (0.5,), train=plain), study("b", (0.5,), train=alike | {"loss": unlike})
    choice, loss = "choice [small, large]", "train.loss.large from random weights.name"
    made = comparison.comparison(a, b)
    assert made.differences(made.sides[1]) == [f"train.backbone: small -> {choice}", f"{loss}: focal -> dice"]
    made = comparison.comparison(b, a)
    assert made.differences(made.sides[1]) == [f"train.backbone: {choice} -> small", f"{loss}: dice -> focal"]


def test_a_parameter_that_one_study_fixes_has_its_value_in_that_study():
    a, b = study("a", (0.5,)), study("b", ())
    document = json.loads(b.study_file.read_text())
    document["identity"]["train"] = {"schedule": "constant", "loss": {"name": "focal"}}
    b.study_file.write_text(json.dumps(document))
    *_, (_, _, winners) = comparison.comparison(a, b).tables()
    assert ["schedule", "cosine", "constant"] in winners
    assert next(row for row in winners if row[0] == "loss.gamma")[2] == "-"
    fixed = {"train": {"loss": {"name": "focal", "gamma": 2}, "optimizer": {"choice": []}, "augment": {"scale": [1]}}}
    side = comparison.Side(b, fixed, [])
    asked = ("loss", "loss.focal.gamma", "loss.asymmetric.gamma", "optimizer", "augment.scale", "head")
    assert [side.fixed(name) for name in asked] == ["focal", 2, None, None, None, None]


def test_values_on_different_images_are_not_compared_in_silence():
    a, b = study("a", (0.5,)), study("b", (0.6,))
    assert comparison.comparison(a, b).caution is None
    for folder, fingerprint in ((a, "x-1"), (b, "y-1")):
        document = json.loads(folder.study_file.read_text()) | {"fingerprint": fingerprint}
        folder.study_file.write_text(json.dumps(document))
    made = comparison.comparison(a, b)
    assert made.document()["caution"] == "The images, labels or splits differ, so the values cannot be compared."
    assert made.caution in page.compare([a, b]).path.read_text()


def test_of_a_metric_that_is_minimised_the_least_is_the_best():
    fields = {"state": "COMPLETE", "metric": "m", "minimize": True, "planned": 1, "backbone": "b"}
    results = [TrialResult(number=n, value=value, **fields) for n, value in enumerate((0.5, 0.9, 0.2))]
    assert comparison.Side(StudyFolder.named("a"), {}, results).best_so_far == [0.5, 0.5, 0.2]


def test_a_study_is_not_compared_with_itself():
    a = study("a", (0.5,))
    with pytest.raises(UserError, match="compared with itself"):
        comparison.comparison(a, a)


def test_different_metrics_are_refused():
    a, b = study("a", ()), study("b", (), metric="macro_f1")
    with pytest.raises(UserError, match="a is ranked by overall_accuracy and b by macro_f1") as caught:
        comparison.comparison(a, b)
    assert caught.value.help == "sweep leaderboard b --by overall_accuracy ranks it by the other's metric"


def test_studies_without_a_completed_trial_have_no_winner():
    made = comparison.comparison(study("a", ()), study("b", (0.5,)))
    assert made.sides[0].winner is None
    (_, _, rows), (_, _, winners) = made.tables()
    assert rows == [["1", "", "0.5000"]]
    assert winners[0] == ["trial", "-", "0"]
    assert json.loads(json.dumps(made.document()))["b"]["best_so_far"] == pytest.approx([0.5])


# --------------------------------------------------------------------------------------------- page
def test_of_two_equals_none_is_ahead():
    made = page.compare([study("a", (0.5, 0.9)), study("b", (0.9,))])
    assert "No study is ahead by overall_accuracy on val: a 0.9000, b 0.9000." in made.path.read_text()


@pytest.mark.parametrize(("error", "ahead"), [(0.02, "No study is"), (0.005, "a is")])
def test_within_a_standard_error_none_is_ahead(error, ahead):
    pair = [study("a", (0.91,)), study("b", (0.90,))]
    for one in pair:
        (result,) = records.results(one)
        records.write_result(one.trial(0), result.model_copy(update={"standard_errors": {"overall_accuracy": error}}))
    text = page.compare(pair).path.read_text()
    assert f"{ahead} ahead by overall_accuracy on val: a 0.9100 ±{error:.4f}, b 0.9000 ±{error:.4f}." in text


def test_three_studies_stand_on_one_page_with_their_boards(tmp_path):
    three = [study("a", (0.5, 0.9)), study("b", (0.6,), train={"epochs": 10}), study("c", ())]
    final = begin(job(three[0], 1, kind="final", folder=three[0].final("2026-11-21-0001").root))
    end(final, curve(final), "COMPLETE")
    studies.note_score("a", 0.4321, "board 2023")
    made = page.compare(three)
    assert made.path == paths.comparison()
    text = made.path.read_text()
    assert "a is ahead by overall_accuracy on val: a 0.9000, b 0.6000." in text
    assert "train.epochs: 20 -&gt; 10" in text
    for said in ("0.4321", "board 2023", 'id="chart-best-so-far"'):
        assert said in text
    assert page.compare(three, tmp_path / "here.html").path.exists()


def test_of_studies_without_a_completed_trial_the_page_says_so():
    text = page.compare([study("a", ()), study("b", (0.5,), pruned=0)]).path.read_text()
    assert "No trial of these studies has completed yet." in text


def test_studies_of_different_metrics_have_no_page():
    with pytest.raises(UserError, match="cannot be compared"):
        page.compare([study("a", (0.5,)), study("b", (0.5,)), study("c", (0.5,), metric="macro_f1")])
    assert not paths.comparison().exists()
