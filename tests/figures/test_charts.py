"""Interactive charts: what is drawn where, and that names stay names."""

import json
from typing import Any

import pytest

from sweeper.figures import charts
from sweeper.figures.parallel import STEPS, Axis
from sweeper.figures.study_plots import Dot

ASKED: dict[str, dict[str, Any]] = {
    "optimizer.lr": {"loguniform": [1e-4, 1.0]},
    "loss": {"choice": [["cross_entropy", {}], ["focal", {}]]},
    "loss.focal.gamma": {"uniform": [0.0, 4.0]},
    "batch_size": {"choice": [[16, 16], [64, 64], [256, 256]]},
    "weights": {"choice": [[None, None], ["[1, 2]", [1, 2]]]},
}
AXES = {name: Axis.of(name, name.split(".")[-1], asked) for name, asked in ASKED.items()}


def dot(number: int, state: str = "COMPLETE", value: float | None = None, **params: Any) -> Dot:
    focal = {"loss": "focal", "loss.focal.gamma": number / 2} if number % 2 else {"loss": "cross_entropy"}
    usual = {"optimizer.lr": 10.0 ** -(number % 4), "batch_size": (16, 64, 256)[number % 3]}
    return Dot(number, state, number / 10 if value is None else value, {**usual, **focal, **params})


DOTS = [dot(n, ("COMPLETE", "COMPLETE", "PRUNED")[n % 3]) for n in range(8)]


def study(dots: list[Dot] = DOTS, axes: dict[str, Axis] = AXES, **more: Any) -> dict[str, dict[str, Any]]:
    return {one.key: json.loads(one.figure) for one in charts.study(dots, list(axes.values()), "macro_f1", **more)}


def line(figure: dict[str, Any], number: int) -> list[float | None]:
    """The heights of a trial on the axes of parallel coordinates."""
    for trace in figure["data"]:
        if number in trace["customdata"]:
            return [y for y, one in zip(trace["y"], trace["customdata"], strict=True) if one == number]
    raise LookupError(number)


def ticks(figure: dict[str, Any], axis: str) -> list[str]:
    place = figure["layout"]["xaxis"]["ticktext"].index(axis)
    return [one["text"] for one in figure["layout"]["annotations"] if one["x"] == place]


# ------------------------------------------------------------------------------------------- places
def test_a_choice_of_numbers_is_a_choice_and_numbers_from_a_log_scale_lie_on_one():
    assert AXES["batch_size"].choices == ("16", "64", "256")
    assert [AXES["batch_size"].place(dot(n)) for n in range(3)] == [0, 1, 2]
    assert (AXES["optimizer.lr"].log, AXES["loss.focal.gamma"].log) == (True, False)


def test_a_value_of_a_branch_that_was_not_chosen_has_no_place():
    assert AXES["loss.focal.gamma"].place(dot(0)) is None
    assert AXES["weights"].place(dot(0)) is None
    assert AXES["weights"].place(dot(0, weights=None)) == 0
    assert AXES["weights"].place(dot(0, weights="[1, 2]")) == 1


# -------------------------------------------------------------------------------- parallel coordinates
def test_each_trial_is_a_line_with_a_gap_where_its_branch_has_no_value():
    figure = study()["parallel"]
    names = figure["layout"]["xaxis"]["ticktext"]
    assert names[-1] == "macro f1"
    place = names.index("gamma")
    for one in DOTS:
        heights = line(figure, one.number)
        assert len(heights) == len(names)
        assert [n for n, height in enumerate(heights) if height is None] == ([] if one.number % 2 else [place])


def test_log_axes_are_even_in_powers_of_ten_and_choices_even_in_their_order():
    figure = study()["parallel"]
    assert ticks(figure, "lr")[0] == "0.001"
    assert ticks(figure, "lr")[-1] == "1"
    lr = figure["layout"]["xaxis"]["ticktext"].index("lr")
    heights = [line(figure, n)[lr] for n in range(4)]
    assert heights == pytest.approx([1, 2 / 3, 1 / 3, 0], abs=1e-3)
    assert ticks(figure, "batch_size") == ["16", "64", "256"]


@pytest.mark.parametrize("minimize", [False, True])
def test_the_best_has_the_strongest_colour_and_is_drawn_last(minimize):
    traces = study(minimize=minimize)["parallel"]["data"]
    complete = [one.number for one in DOTS if one.state == "COMPLETE"]
    assert traces[0]["meta"] == "pruned"
    assert traces[-1]["meta"] == STEPS - 1
    assert set(traces[-1]["customdata"]) == {min(complete) if minimize else max(complete), None}


def test_what_mattered_most_is_the_first_axis_and_only_so_many_are_shown():
    wide = {f"p{n}": Axis.of(f"p{n}", f"p{n}", {"uniform": [0, 9]}) for n in range(20)}
    dots = [dot(n, **dict.fromkeys(wide, n)) for n in range(4)]
    figures = study(dots, wide, shares=[("p7", 0.9, 0.1), ("p3", 0.1, 0.1)])
    assert figures["parallel"]["layout"]["xaxis"]["ticktext"][:2] == ["p7", "p3"]
    assert len(figures["parallel"]["layout"]["xaxis"]["ticktext"]) == charts.MAX_AXES + 1
    assert figures["importance"]["data"][0]["y"] == ["p3", "p7"]


# ---------------------------------------------------------------------------------- history and slices
def test_history_has_every_trial_and_the_best_so_far():
    *points, best = study()["history"]["data"]
    assert {trace["name"]: trace["customdata"] for trace in points} == {
        "completed": [0, 1, 3, 4, 6, 7],
        "pruned": [2, 5],
    }
    assert best["y"] == [0, 0.1, 0.3, 0.4, 0.6, 0.7, 0.7]
    assert study(minimize=True)["history"]["data"][-1]["y"] == [0] * 7


@pytest.mark.parametrize(("count", "step"), [(2, 1), (20, None)])
def test_trials_are_counted_in_whole_numbers(count: int, step: int | None):
    assert study([dot(n) for n in range(count)])["history"]["layout"]["xaxis"].get("dtick") == step


def test_a_slice_is_of_numbers_or_choices_and_has_only_the_trials_that_have_a_value():
    figures = {one["layout"].get("xaxis", {}).get("type"): one for one in study().values()}
    assert figures["log"]["layout"]["xaxis"]["tickformat"] == "~g"
    slices = [one for key, one in study().items() if key.startswith("slice")]
    counts = sorted(sum(len(trace["customdata"]) for trace in one["data"]) for one in slices)
    assert counts == [4, 8, 8, 8]


@pytest.mark.parametrize(("highest", "step"), [(4e-4, None), (8e-4, "D2"), (1e-2, 1)])
def test_the_words_of_a_log_axis_do_not_overlap(highest: float, step: object):
    dots = [dot(n, **{"optimizer.lr": lr}) for n, lr in enumerate((1e-4, highest))]
    axis = next(one for one in study(dots).values() if one["layout"].get("xaxis", {}).get("type") == "log")
    assert axis["layout"]["xaxis"].get("dtick") == step


def test_an_open_value_that_all_trials_share_has_no_chart():
    assert "parallel" not in study([dot(0), dot(4)], {"optimizer.lr": AXES["optimizer.lr"]})


def test_trials_without_a_number_for_a_value_are_left_out():
    assert study([dot(0, value=float("nan"))]) == {}
    assert study([]) == {}


def test_of_very_many_trials_the_best_are_drawn_against_their_values(monkeypatch):
    monkeypatch.setattr(charts, "MAX_TRIALS", 3)
    figures = study()
    assert sum(len(trace["customdata"]) for trace in figures["history"]["data"][:-1]) == len(DOTS)
    known = {number for trace in figures["parallel"]["data"] for number in trace["customdata"]} - {None}
    assert known == {4, 6, 7}


def test_one_trial_has_a_chart_too():
    assert set(study(DOTS[:1])) == {"history"}


# ------------------------------------------------------------------------------------------- names
def test_names_are_words_and_end_no_script():
    bad = "</script><b>x</b>"
    axis = Axis.of(bad, bad, {"choice": [[bad, {}], ["plain", {}]]})
    found = charts.study([dot(0, **{bad: bad}), dot(1, **{bad: "plain"})], [axis], bad, [(bad, 1.0, 0.0)])
    for one in found:
        assert "<" not in one.figure
        assert "<b>" not in json.dumps(json.loads(one.figure))
    assert "<b>x" not in charts.hover(dot(0, **{bad: bad}), bad)


def test_both_themes_have_a_colour_for_everything():
    found = json.loads(charts.themes())
    assert found["light"]["colours"].keys() == found["dark"]["colours"].keys()
    assert {str(step) for step in range(STEPS)} | {"completed", "pruned"} <= found["dark"]["colours"].keys()
    assert found["light"]["template"]["layout"]["font"] != found["dark"]["template"]["layout"]["font"]
