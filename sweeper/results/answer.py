"""The answer of a study in a few sentences: the winner, what it beats, which parameters mattered, and the cost."""

from collections.abc import Sequence
from contextlib import suppress

from sweeper import text
from sweeper.errors import UserError
from sweeper.figures.charts import written
from sweeper.figures.finished_run import Run
from sweeper.results import card
from sweeper.results.importance import edges
from sweeper.results.winner import Winner
from sweeper.space.compare import opened
from sweeper.store import records, study_file
from sweeper.store.importance import Importance, ordered
from sweeper.store.ranking import Ranking, parameter_names
from sweeper.store.studies import StudyStatus, newest_final

SHOWN = 3  # parameters of the winner to show


def sentences(one: StudyStatus, won: Winner | None, ranking: Ranking, mattered: Importance | None) -> list[str]:
    """Return the sentences at the top of a report: the winner, what it beats, what mattered, and the cost."""
    cost = _cost(one)
    if won is None:
        return [f"No trial has completed yet: {cost}." if one.results else "No trial has started yet."]
    said = [_winning(won, mattered), *_beaten(won, ranking)]
    if mattered:
        line = mattered.line
        said.append(f"{line[:1].upper()}{line[1:]}.")
    said += [f"At an edge: {edge.advice}." for edge in edges(one.study, one.results)]
    return [*said, *_used(one), f"It cost {cost}."]


def _winning(won: Winner, mattered: Importance | None) -> str:
    result = won.result
    names, short = ordered(result.params, mattered), _labels(won)
    given = [f"{short[name]} {written(result.params[name])}" for name in names[:SHOWN] if name != "backbone"]
    again = (
        f"; mean of {len(won.confirmed)} new seeds: {sum(won.confirmed) / len(won.confirmed):.4f}"
        if won.confirmed
        else ""
    )
    what, value = ", ".join([result.backbone, *given]), text.format_value(result.value, result.standard_error)
    return f"Trial {result.number} ({what}) is the best: {result.metric} {value} on {won.judged_on}{again}."


def _labels(won: Winner) -> dict[str, str]:
    """Return the labels of the winner's parameters, as in the leaderboard."""
    asked = opened(study_file.identity(won.study).get("train"))
    return parameter_names(dict.fromkeys([*asked, *won.result.params]))


def _beaten(won: Winner, ranking: Ranking) -> Sequence[str]:
    """Return sentences that compare the winner with the next trial and with the most frequent class."""
    ranked = [row for row in ranking.rows if row["rank"] and row["trial"] != won.result.number]
    parts, behind = list[str](), list[str]()
    if ranked:
        tied = sum(bool(row["tied"]) for row in ranked)
        others = f" and {text.counted(tied - 1, 'other')}" if tied > 1 else ""
        within = f" (tied{others}: val cannot separate them)" if tied else ""
        parts.append(f"trial {ranked[0]['trial']} with {text.format_value(ranked[0]['value'])}{within}")
    if (least := _baseline(won)) is not None:
        is_less = (
            won.result.value is not None and least < won.result.value
        )  # every metric with a baseline is maximized
        (parts if is_less else behind).append(
            f"always predicting the most frequent class, with {text.format_value(least)}"
        )
    return [
        *([f"It beats {' and '.join(parts)}."] if parts else []),
        *(f"It does not beat {one}." for one in behind),
    ]


def _baseline(won: Winner) -> float | None:
    """Return the metric of always predicting the most frequent class; None if the data set is unavailable."""
    run = Run(won.study.trial(won.result.number), won.job, won.result)
    with suppress(UserError):
        return card.baseline(run.table, won.job.recipe.folds).get(won.result.metric)
    return None


def _used(one: StudyStatus) -> list[str]:
    """The final model that `sweep predict` and `sweep export` use, if it has been trained."""
    newest = newest_final(one.study)
    final = next((each for each in one.finals if newest and each.folder.root == newest.root), None)
    if final is None:
        return []
    trials = ", ".join(map(str, final.members))
    what = f"an ensemble of trials {trials}" if final.members else f"trial {final.trial}"
    return [f"Final model {final.number}, which `sweep predict` uses, is {what}, retrained on train and val."]


def _cost(one: StudyStatus) -> str:
    """Return a text such as `24 trials (9 pruned, 1 failed) and 3h05m`."""
    counts = {state: sum(r.state == state for r in one.results) for state in ("PRUNED", "FAILED")}
    rest = [f"{count} {state.lower()}" for state, count in counts.items() if count]
    aside = f" ({', '.join(rest)})" if rest else ""
    took = text.format_duration(records.elapsed_seconds(one.study))
    return f"{text.counted(len(one.results), 'trial')}{aside} and {took}"
