"""The model card of data with missing answers and several answers."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.results import card
from sweeper.store.paths import StudyFolder
from sweeper.trial import TrialResult
from tests.support.records import epoch, job, scores
from trainers.data.table import Category, Row, Table
from trainers.epoch import Scores

SLEEVE, TAGS = Category("sleeve", ("long", "short")), Category("tags", ("warm", "dry"), multi=True)


def table(categories=(SLEEVE, TAGS)) -> Table:
    """Four images of train and five of val, of which one has no answer at all; two of test."""
    known = {
        "train": [(0, 1, 0), (0, 1, 1), (1, 0, 0), (-1, 1, 0)],
        "val": [(0, 1, 0), (1, 0, 0), (0, -1, -1), (-1, 1, 0), None],
        "test": [None, None],
    }
    rows = [
        Row(f"{split}{number}.png", split, None, labels, "")
        for split, all_labels in known.items()
        for number, labels in enumerate(all_labels)
    ]
    return Table(Path("x"), categories, tuple(rows))


def mixed(value: float, **answers: int) -> Scores:
    accuracy = {"sleeve": value, "tags": float("nan")}
    several = {"mean_average_precision": float("nan"), "micro_f1": 0.4, "mean_category_score": value}
    changes = {"category_accuracy": accuracy, "category_answers": answers} | several
    return scores(value).model_copy(update=changes)


@pytest.fixture
def text() -> str:
    return written({}, {})


def written(
    val_errors: dict[str, float], test_errors: dict[str, float], *, searched: bool = True, picked: bool = False
) -> str:
    made = job(StudyFolder.named("question"), 0, metric="mean_category_score")
    final = made.model_copy(
        update={"thresholds": {"tags": (0.31, 0.5)}, "temperature": {"tags": 1.75}, "kind": "final"}
    )
    val = mixed(0.6, sleeve=3, tags=3)
    result = TrialResult(
        number=0,
        state="COMPLETE",
        metric="mean_category_score",
        value=0.6,
        epoch=1,
        planned=1,
        backbone="resnet18",
        standard_errors=val_errors,
    )
    test = mixed(0.5).model_copy(update={"standard_errors": test_errors})
    last = epoch(0, 0.6, val=val) if searched else None
    facts = card.CardData("question", result, last, (), final, table(), test, picked=picked)
    return card.card(facts, "abc", None)


def test_a_final_model_without_a_search_has_scores_on_test_alone():
    made = written({}, {}, searched=False)
    assert "| metric | test |\n|---|--:|\n" in made
    assert "| mean_category_score | 0.5000 |\n" in made
    assert "| metric | val | test |\n|---|--:|--:|\n" in written({}, {})


def test_a_trial_that_was_chosen_by_number_is_not_called_the_best():
    assert "trial 0: the best mean_category_score 0.6000 on val" in written({}, {})
    assert "trial 0: mean_category_score 0.6000 on val" in written({}, {}, picked=True)


@pytest.mark.parametrize(
    ("val", "test", "cells"),
    [
        ({}, {}, "0.6000 | 0.5000"),
        ({"mean_category_score": 0.012}, {}, "0.6000 ±0.0120 | 0.5000"),
        ({}, {"mean_category_score": 0.02}, "0.6000 | 0.5000 ±0.0200"),
        ({"mean_category_score": 0.012}, {"mean_category_score": 0.02}, "0.6000 ±0.0120 | 0.5000 ±0.0200"),
    ],
)
def test_the_card_has_the_standard_errors_that_are_known_and_says_what_they_are(val, test, cells):
    made = written(val, test)
    assert f"| mean_category_score | {cells} |" in made
    assert ("± is the standard error" in made) == ("±0" in made)


def test_the_card_says_what_is_answered_and_how_many_answers_its_figures_stand_on(text):
    assert "An image classifier with one answer in one category and any number of answers in tags." in text
    known = "labels are known for 7 of 9 images of train and val, 3 of 5 images of val"
    assert f"- sleeve: {known.replace('7', '6')}\n" in text
    assert f"- tags: {known}\n" in text
    above = "above its threshold, fitted on val: warm 0.31, dry 0.5"
    assert f"- a class of tags is an answer if its probability is {above}\n" in text
    assert "- probabilities are calibrated by a temperature, fitted on val: tags 1.75\n" in text
    assert "| accuracy of sleeve | 0.6000 (3 answers) | 0.5000 |" in text
    assert "| mean_category_score | 0.6000 | 0.5000 |" in text


def test_a_figure_without_an_answer_is_no_number(text):
    assert "| mean average precision of tags | - (3 answers) | - |" in text
    assert "nan" not in text


def test_the_card_refers_to_no_file_that_several_answers_do_not_have(text):
    assert "submission.zip" not in text
    assert "by name: `predictions.csv`" in text
    assert "The numbers are those of `prediction.txt`" not in text


def test_the_baseline_stands_on_the_answers_that_are_known():
    assert card.baseline(table()) == pytest.approx(
        {
            "overall_accuracy": 2 / 3,  # long, of three sleeves
            "mean_class_accuracy": 1 / 2,
            "mean_average_precision": 2 / 3,  # two of three are warm, none is dry
        }
    )


def test_the_baseline_of_several_answers_alone_has_no_accuracy():
    tags = table((TAGS,))
    rows = tuple(replace(row, labels=row.labels and row.labels[1:]) for row in tags.rows)
    assert set(card.baseline(replace(tags, rows=rows))) == {"mean_average_precision"}
    assert card.baseline(replace(tags, rows=())) == {}


def test_the_average_precision_of_equal_scores_is_the_share_that_the_baseline_gives():
    import numpy as np

    from trainers.evaluation.metrics import average_precision

    flags = np.array([[1, 0], [0, 0], [-1, -1], [1, 0]])
    assert np.nanmean(average_precision(np.zeros((4, 2)), flags)) == card.baseline(table())["mean_average_precision"]
