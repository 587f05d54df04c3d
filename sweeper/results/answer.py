"""The answer of a study in a few sentences: the winner, what it beats, which parameters mattered, and the cost."""

from collections.abc import Iterator
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
from sweeper.store.studies import StudyStatus, newest

SHOWN = 3  # parameters of the winner to show


def sentences(one: StudyStatus, won: Winner | None, ranking: Ranking, mattered: Importance | None) -> list[str]:
    """Return the sentences at the top of a report: the winner, what it beats, what mattered, and the cost."""
    cost = _cost(one)
    if won is None:
        if not one.results and (used := _used(one)):
            return ["There was no time for a search, so the first configuration was trained once.", *used]
        return [f"No trial has completed yet: {cost}." if one.results else "No trial has started yet."]
    said = [_winning(won, mattered), *_compared(won, ranking)]
    if mattered:
        line = mattered.line
        said.append(f"{line[:1].upper()}{line[1:]}.")
    said += [f"At an edge: {edge.advice}." for edge in edges(one.study, one.results)]
    return [*said, *_used(one), f"It cost {cost}."]


def _winning(won: Winner, mattered: Importance | None) -> str:
    result = won.result
    names, short = ordered(result.params, mattered), _labels(won)
    given = [f"{short[name]} {written(result.params[name])}" for name in names[:SHOWN] if name != "backbone"]
    what = ", ".join([result.backbone, *given])
    value = f"{result.metric} {text.format_value(result.value, result.standard_error)} on {won.judged_on}"
    if not won.confirmed:
        return f"Trial {result.number} ({what}) is the best: {value}."
    seeds = text.counted(len(won.confirmed), "new seed")
    again = f"mean {result.metric} {sum(won.confirmed) / len(won.confirmed):.4f} over {seeds}"
    return f"Trial {result.number} ({what}) wins: {again}; in the search, {value}."


def _labels(won: Winner) -> dict[str, str]:
    """Return the labels of the winner's parameters, as in the leaderboard."""
    asked = opened(study_file.identity(won.study).get("train"))
    return parameter_names(dict.fromkeys([*asked, *won.result.params]))


def _compared(won: Winner, ranking: Ranking) -> Iterator[str]:
    """Yield sentences that compare the winner with the next trial and with the most frequent class."""
    ranked = [row for row in ranking.rows if row["rank"] and row["trial"] != won.result.number]
    if ranked:
        tied = [row for row in ranked if row["tied"]]
        first = ranked[0] if won.confirmed or not tied else tied[0]
        rival = f"trial {first['trial']} ({text.format_value(first['value'])})"
        if won.confirmed:
            yield f"The next best in the search is {rival}."
        elif tied:
            others = f" and {text.counted(len(tied) - 1, 'other')}" if len(tied) > 1 else ""
            yield f"It is tied with {rival}{others}: {won.judged_on} cannot separate them."
        else:
            yield f"It beats {rival}."
    if (least := _baseline(won)) is not None:
        frequent = "always predicting the most frequent class"
        if won.result.value is not None and least < won.result.value:  # every metric with a baseline is maximized
            yield f"{frequent.capitalize()} scores {text.format_value(least)}."
        else:
            yield f"It does not beat {frequent} ({text.format_value(least)})."


def _baseline(won: Winner) -> float | None:
    """Return the metric of always predicting the most frequent class; None if the data set is unavailable."""
    run = Run(won.study.trial(won.result.number), won.job, won.result)
    with suppress(UserError):
        return card.baseline(run.table, won.job.recipe.folds).get(won.result.metric)
    return None


def _used(one: StudyStatus) -> list[str]:
    """The final model that `sweep predict` and `sweep export` use, if it has been trained."""
    final = newest(one.finals)
    if final is None:
        return []
    what = f"an ensemble of {final.ensemble.name}" if final.ensemble else f"trial {final.trial}"
    return [f"Final model {final.number}, the one that sweep predict uses, is {what}, retrained on train and val."]


def _cost(one: StudyStatus) -> str:
    """Return a text such as `24 trials (9 pruned, 1 failed) and 3h05m`."""
    counts = {state: sum(r.state == state for r in one.results) for state in ("PRUNED", "FAILED")}
    rest = [f"{count} {state.lower()}" for state, count in counts.items() if count]
    aside = f" ({', '.join(rest)})" if rest else ""
    took = text.format_duration(records.elapsed_seconds(one.study))
    return f"{text.counted(len(one.results), 'trial')}{aside} and {took}"
