"""The first lines of a report."""

from dataclasses import replace

import pytest

from sweeper.results import answer, winner
from sweeper.store import records, studies
from sweeper.store.importance import Importance, Share
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.trial import Ensemble, EnsembleMember
from tests.results.test_comparison import study
from tests.support.photos import draw_photos
from tests.support.records import START, begin, curve, end, job, scores


def said(folder: StudyFolder, mattered: Importance | None = None) -> list[str]:
    results = records.results(folder)
    won = winner.winner(folder) if records.best(results) else None
    return answer.sentences(studies.status_of(folder), won, Ranking.of(results, folder), mattered)


def test_the_winner_what_it_beats_and_what_it_cost():
    first, beats, cost = said(study("a", (0.5, 0.9, 0.8), pruned=0))
    assert first == (
        "Trial 1 (resnet18.a1_in1k, gamma 2.143, schedule cosine) is the best: overall_accuracy 0.9000 on val."
    )
    assert beats == "It beats trial 2 (0.8000)."
    assert cost.startswith("It cost 3 trials (1 pruned) and ")


def test_the_first_trial_that_is_tied_is_named_and_not_one_that_is_told_apart():
    folder = study("a", (0.5, 0.9, 0.8, 0.7))
    won, ranking = winner.winner(folder), Ranking.of(records.results(folder), folder)
    for row in ranking.rows:
        row["tied"] = row["trial"] in (1, 3, 0)
    _, compared, *_ = answer.sentences(studies.status_of(folder), won, ranking, None)
    assert compared == "It is tied with trial 3 (0.7000) and 1 other: val cannot separate them."


@pytest.mark.parametrize(
    ("top", "compared"),
    [
        (0.9, ["Always predicting the most frequent class scores 0.4167."]),
        (0.3, ["It does not beat always predicting the most frequent class (0.4167)."]),
    ],
)
def test_a_winner_is_said_to_beat_the_commonest_answer_only_where_it_does(tmp_path, top, compared):
    folder = StudyFolder.named("a")
    folder.root.mkdir(parents=True)
    began = job(folder, 0)
    recipe = began.recipe.model_copy(update={"data": draw_photos(tmp_path)})
    began = begin(began.model_copy(update={"recipe": recipe}))
    end(began, curve(began, top), "COMPLETE")
    _, *found, _ = said(folder)
    assert found == compared


def test_what_mattered_stands_first_among_the_winners_parameters():
    shares = (Share(name="schedule", share=0.9, error=0.1), Share(name="loss.gamma", share=0.1, error=0.2))
    mattered = Importance(record="", completed=30, pruned=20, shares=shares)
    first, *_, line, _ = said(study("a", (0.5, 0.9)), mattered)
    assert "(resnet18.a1_in1k, schedule cosine, gamma 2.143)" in first
    assert line == "What mattered: schedule 90 % ±10."


def test_a_winner_that_new_seeds_chose_says_so_and_is_not_called_the_best():
    folder = study("a", (0.5, 0.9))
    results = records.results(folder)
    won = replace(winner.chosen(folder, 0), confirmed=(0.7, 0.75), picked=False)
    first, rival, *_ = answer.sentences(studies.status_of(folder), won, Ranking.of(results, folder), None)
    assert first.endswith(
        "wins: mean overall_accuracy 0.7250 over 2 new seeds; in the search, overall_accuracy 0.5000 on val."
    )
    assert rival == "The next best in the search is trial 1 (0.9000)."


def finished(folder: StudyFolder, name: str, trial: int, ensemble: Ensemble | None = None) -> None:
    """Put a final model on record."""
    made = job(folder, trial).model_copy(update={"kind": "final", "folder": folder.final(name).root})
    made = begin(made.model_copy(update={"ensemble": ensemble}))
    end(made, [] if ensemble else curve(made, 0.9), "COMPLETE")


def test_the_final_model_that_predict_uses_is_named():
    """Of an ensemble, which is chosen before its members are trained, not a member."""
    folder = study("a", (0.5, 0.9))
    assert len(said(folder)) == 3
    finished(folder, "alone", 1)
    once = study("b", ())
    finished(once, "alone", 0)
    assert said(once)[0].startswith("There was no time for a search")
    assert said(once)[1].startswith("Final model 1, the one that sweep predict uses, is trial 0")
    assert (
        said(folder)[2] == "Final model 1, the one that sweep predict uses, is trial 1, retrained on train and val."
    )
    members = tuple(EnsembleMember(trial=trial, share=0.5, final=f"m{trial}") for trial in (1, 0))
    together = Ensemble(members=members, val=scores(0.9), most=2, started=START - 1)
    for trial in (1, 0):
        finished(folder, f"m{trial}", trial)
    finished(folder, "together", 1, together)
    what = "an ensemble of trials 1 and 0, retrained on train and val"
    assert said(folder)[2] == f"Final model 1, the one that sweep predict uses, is {what}."
    assert studies.note_score("a", 0.8, "") == folder.final("together")


def test_one_trial_beats_nobody():
    assert len(said(study("a", (0.5,)))) == 2


def test_without_a_completed_trial_it_says_so():
    assert said(study("a", ())) == ["No trial has started yet."]
    folder = study("b", (0.5,), pruned=0)
    failed = begin(job(folder, 1))
    end(failed, [], "FAILED", trouble="error", error="boom")
    (only,) = said(folder)
    assert only.startswith("No trial has completed yet: 2 trials (1 pruned, 1 failed) and ")
