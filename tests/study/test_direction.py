"""A study of a metric of which less is better decides as the mirror image of one of which more is better."""

import json
import math

import optuna
import pytest

from sweeper.errors import UserError
from sweeper.results import leaderboard, winner
from sweeper.search.export import OptunaExport
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import records, retention, study_file
from sweeper.store.ranking import Ranking
from sweeper.study import transfer
from sweeper.terminal.summary import SweepSummary
from sweeper.tracking import content
from sweeper.trial import Closing, TrialResult
from tests.support import records as made
from tests.support.studies import CLIMB, QUICK, curve, opened, play, write
from trainers.config import Recipe
from trainers.epoch import Epoch

pytestmark = pytest.mark.usefixtures("faked")

STOPPING = "{sampler: random, pruner: {name: asha, min_epochs: 1, reduction_factor: 2, type: stopping}}"
PATIENT = "{sampler: random, pruner: {name: early_stopping, patience: 0}}"
MODELLED = "{sampler: {name: tpe, startup_trials: 3}, pruner: none}"
LESS = ["metric=log_loss"]


def played(folder, search, sets, jobs=(None,)):
    """The study after as many calls as there are `jobs`; the fake trainer's log_loss is 1 - accuracy."""
    folder.mkdir()
    path = write(folder, search=search, budget="{trials: 12}")
    for count in jobs:
        study = opened(path, sets=sets)
        play(study, count)
        study.close()
    return study


def decided(study):
    return [(one.number, one.state, one.epochs, one.params) for one in study.results()]


@pytest.mark.parametrize("search", [QUICK, CLIMB, STOPPING, MODELLED])
def test_it_prunes_promotes_and_proposes_the_same_with_every_sampler_and_pruner(tmp_path, search):
    more, less = (played(tmp_path / str(k), search, sets) for k, sets in enumerate(([], LESS)))
    assert decided(more) == decided(less)
    assert {one.state for one in less.results()} != {"COMPLETE"} or search == MODELLED
    values = [(one.value, other.value) for one, other in zip(more.results(), less.results(), strict=True)]
    assert [1 - a for a, _ in values] == pytest.approx([b for _, b in values])
    assert more.best
    assert less.best
    assert more.best.number == less.best.number
    complete = [one for one in less.results() if one.state == "COMPLETE"]
    assert less.best.value == min(one.value for one in complete)
    assert winner.winner(less.folder).result == records.best(less.results()) == less.best
    rows = [[row["trial"] for row in Ranking.of(one.results(), one.folder).rows] for one in (more, less)]
    assert rows[0] == rows[1]
    assert leaderboard.document(less.results(), less.folder)["best"] == less.best.number


@pytest.mark.parametrize("sets", [[], LESS])
def test_early_stopping_ends_a_trial_that_gets_worse_and_no_other(tmp_path, sets):
    study = opened(write(tmp_path, search=PATIENT), sets=sets)
    study.next_job()
    for worse in (False, True):
        job = study.next_job()
        assert job
        first, second, *_ = curve(job)
        vals = (second.val, first.val) if worse else (first.val, second.val)
        told = [one.model_copy(update={"val": val}) for one, val in zip((first, second), vals, strict=True)]
        assert [study.report(job.key, one) for one in told] == [True, not worse]
    study.close()


@pytest.mark.parametrize("search", [QUICK, CLIMB])
def test_interrupted_it_comes_to_what_it_comes_to_in_one_go(tmp_path, search):
    whole, parts = (played(tmp_path / str(k), search, LESS, jobs) for k, jobs in enumerate([(None,), (5, 4, None)]))
    assert decided(whole) == decided(parts)
    assert whole.best == parts.best


def test_a_plain_study_says_nothing_of_a_direction_and_the_other_one_says_it(tmp_path):
    for k, sets in enumerate(([], LESS)):
        study = played(tmp_path / str(k), QUICK, sets, (1,))
        folder = study.folder.trial(0)
        texts = [path.read_text() for path in (study.folder.study_file, folder.config, folder.result)]
        assert ["minimize" in text for text in texts] == [bool(sets)] * 3
        assert ("further" in folder.history.read_text()) == bool(sets)
        assert (study_file.read(study.folder) or {})["identity"].get("minimize", False) == bool(sets)
    assert records.history(folder)[0].train.further == {}
    assert set(records.history(folder)[0].val.further) == {"log_loss"}


def test_a_record_with_a_metric_that_nobody_knows_any_more_is_read_as_it_was_written(tmp_path):
    study = played(tmp_path / "a", QUICK, LESS, (1,))
    for name in ("config", "result"):
        path = getattr(study.folder.trial(0), name)
        path.write_text(path.read_text().replace("log_loss", "my_loss"))
    job, result = (records.read_config(study.folder.trial(0)), records.read_result(study.folder.trial(0)))
    assert job
    assert result
    assert (job.recipe.metric, job.recipe.minimize, result.metric, result.minimize) == ("my_loss", True) * 2
    assert result.oriented == -result.value


def test_the_database_for_optunas_dashboard_has_the_direction_also_where_it_had_another(tmp_path):
    study = played(tmp_path / "a", QUICK, LESS)
    suggest = Space(yaml_io.read(tmp_path / "a" / "question.yaml"), ("pattern",)).suggest
    for minimize in (False, True):
        export = OptunaExport(study.folder, suggest, print, minimize=minimize)
        export.opened()
        export.closed(Closing("COMPLETE", timeout=60))
    there = optuna.load_study(study_name=study.folder.name, storage=f"sqlite:///{study.folder.database}")
    assert there.direction == optuna.study.StudyDirection.MINIMIZE
    assert there.best_value == study.best.value


def test_another_direction_is_another_question(tmp_path):
    study = played(tmp_path / "a", QUICK, LESS, (1,))
    with pytest.raises(UserError, match=r"metric: log_loss -> overall_accuracy"):
        opened(tmp_path / "a" / "question.yaml")
    spec = yaml_io.read(tmp_path / "a" / "question.yaml", sets=LESS)
    space = Space(spec, ("pattern",))
    document = json.loads(study.folder.study_file.read_text())
    del document["identity"]["minimize"]
    study.folder.study_file.write_text(json.dumps(document))
    new = study.folder.named("other")
    new.root.mkdir(parents=True)
    lines = list(transfer.warm_start(spec, space, new, study.folder, ""))
    assert lines[-1] == f"nothing learnt from {study.folder.name}: its log_loss was maximized"


# ------------------------------------------------------------------------------------- one by one
def result(number, value, **more):
    fields = {"state": "COMPLETE", "metric": "log_loss", "planned": 3, "backbone": "b", "epochs": 3, "epoch": 3}
    return TrialResult(number=number, value=value, **(fields | more))


WORST_FIRST = [result(0, 0.9), result(1, 0.3), result(2, None, state="FAILED"), result(3, 0.5)]


def test_the_leader_is_the_lowest_wherever_one_is_named():
    assert records.best(WORST_FIRST) == WORST_FIRST[1]
    board = SweepSummary()
    board.plan(None, WORST_FIRST)
    assert board.best == WORST_FIRST[1]
    assert retention.outside_best(WORST_FIRST, 2) == [WORST_FIRST[0], WORST_FIRST[2]]
    assert "**Best log_loss**: 0.3000" in content.note("COMPLETE", "log_loss", WORST_FIRST, 4, "")
    times = {one.number: float(one.number) for one in WORST_FIRST}
    points = content.progress({one.number: one for one in WORST_FIRST}, times, "log_loss")
    assert [point.figures["best_log_loss"] for point in points] == [0.9, 0.3, 0.3]
    assert json.loads(content.view("run", (), minimize=True))["orderByAsc"] is True


def test_values_below_zero_are_compared_as_they_are():
    kappas = [result(0, -0.4, metric="quadratic_kappa"), result(1, -0.1, metric="quadratic_kappa")]
    assert records.best(kappas) == kappas[1]
    assert retention.outside_best([*kappas, result(2, None, state="FAILED")], 2)[0].number == 2


def test_a_cell_of_a_cross_is_its_lowest_trial():
    trials = [
        result(n, value, params={"a": n % 2, "b": 1, "c": n, "d": n}) for n, value in enumerate([0.9, 0.3, 0.4, 0.8])
    ]
    cells = leaderboard.cross(trials, "a", "b").cells
    assert [row[0].value for row in cells] == [0.4, 0.3]


def test_the_winners_views_count_where_they_do_not_raise_the_loss(tmp_path):
    study = played(tmp_path / "a", QUICK, LESS)
    won = winner.winner(study.folder)
    scores = won.epoch.val.model_dump()
    for change, gains in ((-0.1, True), (0.1, False)):
        look = {**scores, "further": {"log_loss": won.result.value + change}}
        seen = TrialResult.model_validate(won.result.model_dump() | {"tta": look})
        assert winner.Winner(won.study, seen, won.job).views == gains


@pytest.mark.parametrize(("selection", "chosen"), [("metric", 2), ("log_loss", 2), ("macro_f1", 3), ("last", 3)])
@pytest.mark.parametrize("metric", ["log_loss", "overall_accuracy"])
def test_the_epoch_that_counts_has_the_lowest_loss_where_selection_names_one(metric, selection, chosen):
    data, train = {"root": "d"}, {"backbone": "b", "selection": selection}
    recipe = Recipe.model_validate({"data": data, "metric": metric, "train": train})
    epochs = [made.epoch(k, value) for k, value in enumerate([0.2, 0.3, 0.6])]
    further = [{"log_loss": value} for value in (0.5, 0.1, 0.4)]
    epochs = [
        one.model_copy(update={"val": one.val.model_copy(update={"further": more})})
        for one, more in zip(epochs, further, strict=True)
    ]
    if (metric, selection) == ("overall_accuracy", "metric"):
        chosen = 3
    assert max(epochs, key=recipe.rank).number == chosen
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert (again, again.minimize, again.minimize_selection) == (
        recipe,
        metric == "log_loss",
        selection == "log_loss",
    )


def test_a_final_which_has_no_val_counts_its_last_epoch_and_shows_the_loss_of_train(tmp_path):
    job = made.job(played(tmp_path / "a", QUICK, LESS, (1,)).folder, 0, metric="log_loss", kind="final")
    epochs = [made.epoch(k, 0.5, val=None) for k in range(3)]
    ended = records.result_of(job, epochs, "INTERRUPTED")
    assert (ended.value, ended.epoch) == (None, 3)
    row = SweepSummary().epoch(job, epochs[0], None)
    assert row.values == [epochs[0].train.loss]
    assert all(math.isfinite(value) for point in content.points(job, epochs) for value in point.figures.values())
    assert Epoch.model_validate_json(epochs[0].model_dump_json()) == epochs[0]
