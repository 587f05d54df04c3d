"""The first lines of a report."""

from dataclasses import replace

import pytest

from sweeper.results import answer, winner
from sweeper.store import records, studies
from sweeper.store.importance import Importance, Share
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.store.studies import FinalRun
from sweeper.trial import Ensemble, EnsembleMember
from tests.results.test_comparison import study
from tests.support.photos import draw_photos
from tests.support.records import begin, curve, end, job


def said(folder: StudyFolder, mattered: Importance | None = None) -> list[str]:
    results = records.results(folder)
    won = winner.winner(folder) if records.best(results) else None
    return answer.sentences(studies.status_of(folder), won, Ranking.of(results, folder), mattered)


def test_the_winner_what_it_beats_and_what_it_cost():
    first, beats, cost = said(study("a", (0.5, 0.9, 0.8), pruned=0))
    assert first == (
        "Trial 1 (resnet18.a1_in1k, gamma 2.143, schedule cosine) is the best: overall_accuracy 0.9000 on val."
    )
    assert beats == "It beats trial 2 with 0.8000."
    assert cost.startswith("It cost 3 trials (1 pruned) and ")


@pytest.mark.parametrize(
    ("top", "compared"),
    [
        (0.9, ["It beats always predicting the most frequent class, with 0.4167."]),
        (0.3, ["It does not beat always predicting the most frequent class, with 0.4167."]),
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


@pytest.mark.parametrize(
    ("members", "what"), [((), "trial 1, retrained"), ((1, 0), "an ensemble of trials 1, 0, retrained")]
)
def test_the_final_model_that_predict_uses_is_named(members, what):
    folder = study("a", (0.5, 0.9))
    together = Ensemble.model_construct(members=[EnsembleMember.model_construct(trial=trial) for trial in members])
    done = FinalRun(folder.final("one"), 1, True, (), 1, together if members else None)
    unfinished = FinalRun(folder.final("two"), 0, False, (), 2)
    one = replace(studies.status_of(folder), finals=(done, unfinished))
    *_, used, _ = answer.sentences(one, winner.winner(folder), Ranking.of(one.results, folder), None)
    assert used == f"Final model 1, which `sweep predict` uses, is {what} on train and val."


def test_one_trial_beats_nobody():
    assert len(said(study("a", (0.5,)))) == 2


def test_without_a_completed_trial_it_says_so():
    assert said(study("a", ())) == ["No trial has started yet."]
    folder = study("b", (0.5,), pruned=0)
    failed = begin(job(folder, 1))
    end(failed, [], "FAILED", trouble="error", error="boom")
    (only,) = said(folder)
    assert only.startswith("No trial has completed yet: 2 trials (1 pruned, 1 failed) and ")
