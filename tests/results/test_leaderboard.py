"""The leaderboard: order, ties, ways out."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweeper.errors import UserError
from sweeper.results import columns, leaderboard, winner
from sweeper.store import records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.trial import TrialResult
from tests.support.cli import lay_out, sweep
from tests.support.records import begin, curve, job
from trainers.data.summary import CategorySummary, Summary
from trainers.data.table import Category
from trainers.evaluation import bootstrap, metrics
from trainers.support.checksummed import save_array


@pytest.fixture
def study() -> StudyFolder:
    return StudyFolder.named("focal_weights")


def result(number: int, value: float | None, state="COMPLETE", **changes) -> TrialResult:
    fields = {"params": {"backbone": "resnet18", "loss.gamma": 1.5}, "epochs": 3, "epoch": 3}
    fields |= {"metric": "overall_accuracy", "planned": 3, "backbone": "resnet18", "seconds": 90.0}
    return TrialResult(number=number, value=value, state=state, **(fields | changes))


def board(results: list[TrialResult], study: StudyFolder) -> columns.Board:
    return columns.board(Ranking.of(results, study))


def with_predictions(study: StudyFolder, images: int) -> None:
    """A trial that has left its logits, of two categories."""
    started = begin(job(study, 0))
    curve(started)
    np.save(RunFolder(started.folder).val_logits, np.zeros((images, 5), np.float32))


def test_the_best_comes_first_and_the_earlier_of_equals(study):
    table = leaderboard.frame([result(0, 0.7), result(1, 0.9), result(2, 0.9), result(3, 0.8)], study)
    assert list(table["trial"]) == [1, 2, 3, 0]
    assert list(table["rank"]) == [1, 2, 3, 4]


def test_a_pruned_trial_has_its_place_and_no_rank(study):
    table = leaderboard.frame([result(0, 0.7), result(1, 0.8, "PRUNED"), result(2, 0.6)], study)
    assert list(table["trial"]) == [1, 0, 2]
    assert table["rank"].fillna(0).tolist() == [0, 1, 2]


def test_failed_trials_stand_at_the_end_with_the_reason(study):
    failed = result(0, 0.99, "FAILED", failure="nan", error="loss is NaN at epoch 3")
    table = leaderboard.frame([failed, result(1, None, "RUNNING"), result(2, 0.5)], study)
    assert list(table["trial"]) == [2, 1, 0]
    assert table["error"].iloc[-1] == "loss is NaN at epoch 3"


def test_the_standard_error_is_that_of_a_share_of_all_labels(study):
    with_predictions(study, images=1000)
    table = leaderboard.frame([result(0, 0.8)], study)
    assert table["standard_error"].iloc[0] == pytest.approx(math.sqrt(0.8 * 0.2 / 2000))


def test_damaged_predictions_cost_the_standard_error_and_not_the_leaderboard(study):
    with_predictions(study, images=1000)
    (path,) = study.trials.glob("*/val_logits.npy")
    path.write_bytes(path.read_bytes()[:5])
    assert leaderboard.frame([result(0, 0.8)], study)["standard_error"].isna().all()


def test_without_a_bootstrap_trials_within_one_standard_error_of_the_best_are_tied(study):
    with_predictions(study, images=1000)
    table = leaderboard.frame([result(0, 0.8), result(1, 0.795), result(2, 0.78), result(3, 0.8, "PRUNED")], study)
    tied = dict(zip(table["trial"], table["tied"].astype(object), strict=True))
    assert (tied[0], tied[1], tied[2]) == (True, True, False)
    assert tied[3] is pd.NA


CATEGORIES = (Category("colour", ("red", "blue")), Category("fit", ("slim", "loose", "wide")))


def bootstrapped(study: StudyFolder, number: int, wrong: set[int], *, images=400, metric="overall_accuracy", seed=0):
    """A completed trial that errs in the first category of these images, with what its worker leaves."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(len(one.classes), size=images) for one in CATEGORIES], axis=1).astype(np.int32)
    said = labels[:, 0] ^ np.isin(np.arange(images), list(wrong))
    logits = np.hstack([np.eye(2)[said], np.eye(3)[labels[:, 1]]]).astype(np.float32)
    made = bootstrap.resample(logits, labels, CATEGORIES)
    folder = study.trial(number)
    folder.root.mkdir(parents=True, exist_ok=True)
    save_array(folder.val_bootstrap, made)
    value = metrics.scores(logits, labels, CATEGORIES, loss=0).value(metric)
    return result(number, value, metric=metric, standard_errors=bootstrap.standard_errors(made))


def ties(study: StudyFolder, results: list[TrialResult]) -> dict[int, bool | None]:
    return {row["trial"]: row["tied"] for row in Ranking.of(results, study).rows}


@pytest.mark.parametrize("metric", ["overall_accuracy", "mean_class_accuracy", "macro_f1"])
def test_a_difference_is_sharper_than_the_scores(study, metric):
    """Trial 1 errs in the same images as the best and in 6 more: its value is within one standard error."""
    best = bootstrapped(study, 0, set(range(100)), metric=metric)
    worse = bootstrapped(study, 1, set(range(106)), metric=metric)
    other = bootstrapped(study, 2, set(range(296, 400)), metric=metric)  # in other images: the difference is blurred
    assert best.value - worse.value < best.standard_error
    assert worse.value <= other.value
    assert ties(study, [best, worse, other]) == {0: True, 1: False, 2: True}


def test_the_leaders_to_confirm_are_the_tied_trials(study):
    for number, wrong in enumerate([range(100), range(106), range(296, 400)]):
        curve(begin(job(study, number)), count=1)
        records.write_result(study.trial(number), bootstrapped(study, number, set(wrong)))
    assert [one.number for one in winner.leaders(study)] == [0, 2]


@pytest.mark.parametrize(("more", "tied"), [(0, True), (1, True), (3, True), (5, False), (300, False)])
def test_a_few_images_more_that_a_trial_errs_in_prove_nothing(study, more, tied):
    best, worse = bootstrapped(study, 0, set(range(50))), bootstrapped(study, 1, set(range(50 + more)))
    assert ties(study, [best, worse]) == {0: True, 1: tied}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no array"), lambda path: cut(path)])
def test_where_resamples_are_lost_one_standard_error_decides(study, damage):
    best, worse = bootstrapped(study, 0, set(range(100))), bootstrapped(study, 1, set(range(106)))
    damage(study.trial(1).val_bootstrap)
    assert ties(study, [best, worse]) == {0: True, 1: True}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def test_trials_on_other_val_images_are_compared_as_independent_ones(study):
    best, worse = bootstrapped(study, 0, set(range(100))), bootstrapped(study, 1, set(range(106)), seed=1)
    assert ties(study, [best, worse]) == {0: True, 1: True}


def test_a_trial_of_an_older_version_has_no_standard_error_and_stays_in_its_place(study):
    best, old = bootstrapped(study, 0, {1, 2}, metric="macro_f1"), result(1, 0.5, metric="macro_f1")
    assert ties(study, [best, old]) == {0: True, 1: False}
    assert ties(study, [old]) == {1: None}
    assert ties(study, [result(2, 0.999, metric="macro_f1"), best]) == {2: None, 0: None}
    assert ties(study, [best, result(3, None, metric="macro_f1")]) == {0: True, 3: None}


def test_by_another_metric_its_own_standard_error_decides(study):
    trials = [bootstrapped(study, 0, set(range(50))), bootstrapped(study, 1, set(range(60)))]
    macro = [one.model_copy(update={"metric": "macro_f1", "value": 0.9}) for one in trials]
    rows = Ranking.of(macro, study).rows
    assert [row["standard_error"] for row in rows] == [one.standard_errors["macro_f1"] for one in trials]


@pytest.mark.parametrize("metric", ["mean_class_accuracy", "macro_f1"])
def test_a_metric_that_is_no_single_share_has_no_standard_error_without_a_bootstrap(study, metric):
    with_predictions(study, images=1000)
    table = leaderboard.frame([result(0, 0.8, metric=metric)], study)
    assert table["standard_error"].isna().all()
    assert table["tied"].isna().all()


def test_the_epoch_that_counts_is_shown_where_it_is_not_the_last(study):
    ends = [result(0, 0.8), result(1, 0.7, epoch=2)]
    assert list(leaderboard.frame(ends, study)["epoch"]) == [3, 2]
    assert "epoch" in board(ends, study).headers
    assert "epoch" not in board(ends[:1], study).headers


def test_values_that_only_some_trials_have_stay_empty_elsewhere(study):
    other = result(1, 0.5, params={"schedule": "cosine"})
    table = leaderboard.frame([result(0, 0.8), other], study)
    assert pd.isna(table["loss.gamma"].iloc[1])
    assert table["schedule"].iloc[1] == "cosine"


def test_an_open_value_never_hides_a_column_of_ours(study):
    table = leaderboard.frame([result(0, 0.8, params={"epochs": 7})], study)
    assert (table["epochs"].iloc[0], table["train.epochs"].iloc[0]) == (3, 7)


def test_an_empty_study_has_an_empty_leaderboard(study):
    assert len(leaderboard.frame([], study)) == 0
    document = leaderboard.document([], study)
    assert (document["best"], document["trials"]) == (None, [])
    assert Ranking.of([], study).csv().startswith("rank,trial,state")
    assert board([], study).rows == []


def test_the_document_is_plain_json_with_a_version(study):
    results = [result(0, 0.8), result(1, None, "FAILED", error="x", params={"loss.gamma": 2.0})]
    document = json.loads(json.dumps(leaderboard.document(results, study), allow_nan=False))
    assert (document["schema_version"], document["best"], document["metric"]) == (1, 0, "overall_accuracy")
    first, second = document["trials"]
    assert (first["value"], first["params"]["loss.gamma"]) == (0.8, 1.5)
    assert (second["value"], second["rank"], second["error"]) == (None, None, "x")


def test_the_csv_reads_back(study):
    table = pd.read_csv(io.StringIO(Ranking.of([result(0, 0.8), result(1, 0.9)], study).csv()))
    assert table["trial"].tolist() == [1, 0]
    assert table["loss.gamma"].tolist() == [1.5, 1.5]


def test_people_read_ties_errors_and_reasons(study):
    with_predictions(study, images=1000)
    shown = board([result(0, 0.8), result(1, None, "FAILED", error="out of memory")], study)
    first, second = (dict(zip(shown.headers, row, strict=True)) for row in shown.rows)
    assert (first["rank"], first["value"], first["epochs"], first["minutes"]) == (
        "1~",
        "0.8000 ±0.0089",
        "3/3",
        "1.5",
    )
    assert (second["rank"], second["value"], second["error"]) == ("", "", "out of memory")


def test_running_trials_come_from_the_record(study):
    curve(begin(job(study, 4)), 0.6)
    table = leaderboard.frame(records.results(study), study)
    assert table["state"].tolist() == ["INTERRUPTED"]


# --------------------------------------------------------------------------------------- two values crossed
HEAD_DEPTH = (Path(__file__).parents[2] / "search_spaces" / "head_depth.yaml").read_text()
TINY = {
    "train.backbone": "{choice: [test_resnet, test_efficientnet, test_convnext]}",
    "train.pretrained": "false",
    "train.image_size": "32",
    "train.epochs": "1",
    "train.batch_size": "16",
    "data.root": "garments",
}
SETS = [word for pair in TINY.items() for word in ("--set", "=".join(pair))]


def at(number: int, value: float | None, state="COMPLETE", **params) -> TrialResult:
    return result(number, value, state, params=params)


def shown(results: list[TrialResult], down: str, across: str) -> list[list[str]]:
    headers, cells = leaderboard.cross(results, down, across).table()
    return [headers, *cells]


def test_two_open_values_are_crossed_and_what_no_trial_tried_is_empty():
    results = [
        at(0, 0.7, backbone="b", layers=4),
        at(1, 0.8, backbone="b", layers=0),
        at(2, 0.6, backbone="a", layers=4),
    ]
    assert shown(results, "backbone", "layers") == [
        ["backbone", "0", "4"],
        ["b", "0.8000", "0.7000"],
        ["a", "", "0.6000"],
    ]


def test_fractions_have_three_digits_unless_two_would_be_equal():
    results = [at(0, 0.7, lr=0.0012345678, gamma=0.50001), at(1, 0.8, lr=0.01, gamma=0.50002)]
    assert leaderboard.cross(results, "lr", "gamma").labels == (("0.00123", "0.01"), ("0.50001", "0.50002"))


def test_a_cell_is_the_mean_over_the_only_third_open_value_and_the_title_says_so():
    results = [at(n, value, loss="dice", balanced_sampling=0, seed=n) for n, value in enumerate([0.6, 0.7, 0.8])]
    made = leaderboard.cross(results, "loss", "balanced_sampling")
    assert made.title == "overall_accuracy, loss down, balanced_sampling across: mean ± standard error over seed"
    assert made.table()[1] == [["dice", "0.7000 ±0.0577"]]


def test_a_cell_is_its_best_trial_where_more_than_three_values_are_open():
    results = [at(n, value, a=1, b=1, c=n, d=n) for n, value in enumerate([0.6, 0.8, 0.7])]
    made = leaderboard.cross(results, "a", "b")
    assert made.title.endswith("the best of each cell")
    assert made.table()[1] == [["1", "0.8000"]]


def test_a_cell_that_nothing_completed_says_what_became_of_its_best_trial():
    pruned, failed = at(0, 0.7, "PRUNED", a=1, b=1), at(1, None, "FAILED", a=1, b=2)
    assert shown([pruned, failed], "a", "b")[1] == ["1", "0.7000 (pruned)", "(failed)"]


def test_a_mean_of_fewer_trials_than_began_says_so():
    results = [at(0, 0.6, a=1, b=1, seed=0), at(1, 0.8, a=1, b=1, seed=1), at(2, 0.1, "PRUNED", a=1, b=1, seed=2)]
    assert shown(results, "a", "b")[1] == ["1", "0.7000 ±0.1000 (2 of 3)"]


def test_a_value_of_a_branch_that_was_not_chosen_has_a_dash():
    results = [at(0, 0.6, schedule="step", every=2), at(1, 0.7, schedule="cosine")]
    assert shown(results, "schedule", "every") == [
        ["schedule", "2", "-"],
        ["step", "0.6000", ""],
        ["cosine", "", "0.7000"],
    ]


def test_seeds_across_have_their_mean_and_its_standard_error_beside_them():
    results = [at(n, value, loss="dice", seed=n) for n, value in enumerate([0.6, 0.7, 0.8])]
    results.append(at(3, 0.5, "PRUNED", loss="focal", seed=0))
    assert shown(results, "loss", "seed") == [
        ["loss", "0", "1", "2", "mean"],
        ["dice", "0.6000", "0.7000", "0.8000", "0.7000 ±0.0577"],
        ["focal", "0.5000 (pruned)", "", "", ""],
    ]


def test_a_value_that_was_not_open_is_refused_with_the_nearest_that_was():
    with pytest.raises(UserError, match=r"there is no parameter 'head\.layer' in this study") as caught:
        leaderboard.cross([at(0, 0.6, **{"head.layers": 2, "backbone": "a"})], "train.backbone", "head.layer")
    assert caught.value.help == "did you mean 'head.layers'?"


def test_a_value_is_not_crossed_with_itself():
    with pytest.raises(UserError, match="backbone cannot be crossed with itself"):
        leaderboard.cross([at(0, 0.6, backbone="a")], "backbone", "train.backbone")


def head_depth(folder: Path, **changes: str) -> list[str]:
    """What the leaderboard prints of search_spaces/head_depth.yaml with tiny networks, the ranking cut off."""
    lay_out(folder, HEAD_DEPTH)
    ended = sweep(folder, "run", "space.yaml", *SETS, "--inline", "--no-mlflow", **changes)
    assert ended.returncode == 0, ended.stderr
    crossed = sweep(folder, "leaderboard", "--cross", "backbone", "head.layers").stdout
    assert sweep(folder, "leaderboard").stdout.endswith("\n\n" + crossed)
    document = json.loads(sweep(folder, "leaderboard", "--json").stdout)["cross"]
    assert (document["rows"]["name"], document["columns"]["values"]) == ("backbone", ["0", "2", "4"])
    assert [cell["state"] for row in document["cells"] for cell in row] == ["COMPLETE"] * 9
    assert "did you mean 'head.layers'?" in sweep(folder, "leaderboard", "--cross", "backbone", "head.layer").stderr
    title, *lines = crossed.splitlines()
    as_csv = sweep(folder, "leaderboard", "--cross", "backbone", "head.layers", "--csv").stdout.splitlines()
    assert as_csv == [",".join(line.split()) for line in lines]
    return [title, *lines]


def judge(lines: list[str]) -> None:
    title, headers, *rows = lines
    assert title == "overall_accuracy, backbone down, head.layers across: the best of each cell"
    assert headers.split() == ["backbone", "0", "2", "4"]
    assert [row.split()[0] for row in rows] == ["test_resnet", "test_efficientnet", "test_convnext"]
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row.split()[1:])
    assert {len(row.split()) for row in rows} == {4}


@pytest.mark.process
def test_a_grid_over_two_values_prints_its_table_below_the_ranking(tmp_path):
    judge(head_depth(tmp_path))


@pytest.mark.process
@pytest.mark.slow
def test_the_question_of_head_depth_is_answered_by_a_three_by_three_table_of_real_trainings(tmp_path):
    judge(head_depth(tmp_path, SWEEP_TRAINER=""))


# ------------------------------------------------------------------- missing answers, several answers
def on_record(study, images, *, multi=False, **answers):
    """A trial that has left its logits; val's answers by category, and whether `material` has several."""
    started = begin(job(study, 0))
    (last,) = curve(started, count=1)
    figures = {"mean_average_precision": 0.5, "micro_f1": 0.5, "mean_category_score": 0.5} if multi else {}
    val = last.val.model_copy(update={"category_answers": answers} | figures)
    folder = RunFolder(started.folder)
    folder.history.write_text(last.model_copy(update={"val": val}).model_dump_json() + "\n")
    np.save(folder.val_logits, np.zeros((images, 5), np.float32))
    kinds = [
        CategorySummary(name=name, classes=(), multi=multi and name == "material") for name in val.category_accuracy
    ]
    summary = Summary(layout="table", root="x", images={}, held_out=False, categories=tuple(kinds), notes=())
    study.data.write_text(summary.model_dump_json())


@pytest.mark.parametrize(
    ("multi", "answers", "stands_on"),
    [
        (False, {}, 2000),
        (False, {"material": 700, "sleeve length": 1000}, 1700),
        (True, {}, 1000),
        (True, {"material": 700, "sleeve length": 640}, 640),
    ],
)
def test_the_standard_error_stands_on_the_known_answers_of_categories_with_one(study, multi, answers, stands_on):
    on_record(study, 1000, multi=multi, **answers)
    table = leaderboard.frame([result(0, 0.8)], study)
    assert table["standard_error"].iloc[0] == pytest.approx(math.sqrt(0.8 * 0.2 / stands_on))


def test_where_nobody_knows_which_categories_have_one_answer_there_is_no_standard_error(study):
    on_record(study, 1000, multi=True)
    study.data.unlink()
    assert leaderboard.frame([result(0, 0.8)], study)["standard_error"].isna().all()


# --------------------------------------------------------------------------------- numbers in bins
def test_numbers_that_no_two_trials_share_are_put_into_quartiles():
    results = [at(n, n / 20, lr=10 ** (n / 4 - 5), loss="dice") for n in range(12)]
    headers, *rows = shown(results, "lr", "loss")
    assert headers == ["lr", "dice"]
    assert [row[0] for row in rows] == [
        "1e-05 to 3.16e-05",
        "5.62e-05 to 0.000178",
        "0.000316 to 0.001",
        "0.00178 to 0.00562",
    ]
    assert rows[-1][1] == "0.5500"


def test_numbers_that_trials_share_stand_by_themselves_however_many():
    results = [at(n, 0.5, layers=n // 2, loss="dice") for n in range(24)]
    assert len(shown(results, "layers", "loss")) == 13


def test_a_value_that_a_branch_lacks_stands_beside_the_bins():
    results = [at(n, 0.5, every=n, schedule="step") for n in range(12)] + [at(12, 0.5, schedule="cosine")]
    assert [row[0] for row in shown(results, "every", "schedule")[1:]][-1] == leaderboard.ABSENT
