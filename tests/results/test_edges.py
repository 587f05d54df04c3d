"""An open value whose best trials crowd at an end of its range is named with the range to try."""

import json
from typing import Any

import pytest

from sweeper.results.importance import edges
from sweeper.store.paths import StudyFolder
from sweeper.trial import TrialResult
from tests.results.test_importance import asking


def result(number: int, value: float, **changes: Any) -> TrialResult:
    ended = {"state": "COMPLETE", "params": {}, **changes}
    return TrialResult(
        number=number, metric="m", value=value, epoch=1, epochs=1, planned=1, backbone="b", seconds=1.0, **ended
    )


def found(asked: dict[str, Any], values: list[Any], *, minimize: bool = False, state: str = "COMPLETE") -> list[str]:
    """What is said of a study of one open value, the best trial first."""
    folder = asking({"backbone": "b", "optimizer": {"lr": asked}})
    trials = [
        result(
            n,
            value=n / 100 if minimize else 0.9 - n / 100,
            minimize=minimize,
            state=state,
            params={"optimizer.lr": value},
        )
        for n, value in enumerate(values)
    ]
    return [edge.advice for edge in edges(folder, trials)]


LR = {"loguniform": [3e-4, 1e-2]}
LOW, MIDDLE, HIGH = 3.2e-4, 2e-3, 9e-3


@pytest.mark.parametrize(
    ("asked", "values", "try_"),
    [
        (LR, [LOW] * 4 + [MIDDLE] * 6, "the lowest tenth of 0.0003 to 0.01; try 9.3e-05 to 0.01"),
        (LR, [HIGH] * 5 + [MIDDLE, LOW] * 3, "the highest tenth of 0.0003 to 0.01; try 0.0003 to 0.032"),
        ({"uniform": [0.25, 0.8]}, [0.79] * 5 + [0.3] * 5, "the highest tenth of 0.25 to 0.8; try 0.25 to 0.98"),
        ({"uniform": [0.5, 3]}, [0.6] * 4 + [2] * 6, "the lowest tenth of 0.5 to 3; try 0 to 3"),
        ({"uniform": [-2, 2], "step": 0.5}, [-2] * 5 + [0] * 5, "the lowest tenth of -2 to 2; try -3.5 to 2"),
        ({"int": [2, 8], "step": 3}, [8] * 5 + [2] * 5, "the highest tenth of 2 to 8; try 2 to 11"),
        ({"logint": [8, 128]}, [128] * 5 + [16] * 6, "the highest tenth of 8 to 128; try 8 to 323"),
    ],
)
def test_it_is_named_with_a_range_that_goes_further_on_that_side(asked, values, try_):
    (said,) = found(asked, values)
    assert said.startswith("lr, ")
    assert try_ in said


@pytest.mark.parametrize(
    ("asked", "values"),
    [
        (LR, [LOW] * 3 + [MIDDLE] * 7),  # three are no crowd
        (LR, [LOW] * 4 + [MIDDLE] * 5),  # too few trials
        (LR, [LOW] * 10),  # the others are there as well: nothing else was tried
        ({"uniform": [0.0, 0.3]}, [0.0] * 5 + [0.2] * 5),  # nothing is below 0
        ({"uniform": [0.5, 1.0]}, [1.0] * 5 + [0.6] * 5),  # nor above 1
        ({"choice": [["a", "a"], ["b", "b"]]}, ["a"] * 5 + ["b"] * 5),
    ],
)
def test_nothing_is_said_where_that_tells_nothing(asked, values):
    assert found(asked, values) == []


def test_the_best_of_a_metric_of_which_less_is_better_are_the_lowest():
    assert len(found(LR, [LOW] * 5 + [MIDDLE] * 5, minimize=True)) == 1
    assert found(LR, [MIDDLE] * 5 + [LOW] * 5, minimize=True) == []


def test_trials_that_were_pruned_do_not_count():
    assert found(LR, [LOW] * 5 + [MIDDLE] * 5, state="PRUNED") == []


def test_a_value_of_a_branch_counts_where_the_best_trials_have_it():
    loss = {"choice": [["focal", {"name": "focal", "gamma": {"uniform": [1.5, 4]}}], ["dice", "dice"]]}
    folder = asking({"backbone": "b", "loss": loss})
    focal = [{"loss": "focal", "loss.focal.gamma": value} for value in (3.9, 4.0, 3.8, 3.95, 2.0)]
    trials = [
        result(n, value=0.9 - n / 100, params=params) for n, params in enumerate([*focal, *[{"loss": "dice"}] * 5])
    ]
    (edge,) = edges(folder, trials)
    assert edge.name == "loss.focal.gamma"
    assert json.loads(json.dumps(edge.document()))["wider"] == [1.5, 4.8]


def test_a_study_without_a_file_has_none():
    assert edges(StudyFolder.named("none"), []) == []
