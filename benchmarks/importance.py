"""Measure how many trials `what mattered` needs, on synthetic studies whose most important parameter is known.

A study has two to six parameters of every kind, each with a smooth effect on the metric, and noise between seeds. The
effect of each parameter has four times the variance of the next one's. Half of the studies are searched at random,
half by TPE. In half of them, the worse half of the trials is pruned. By number of trials, the script prints the share
of studies in which the most important parameter ranks first and, with --errors, the share in which the first is ahead
of the second by more than their errors.
"""

import argparse
import math
import random
from typing import Any

import optuna

from sweeper.search import importance
from sweeper.trial import TrialResult

KINDS: tuple[dict[str, list[Any]], ...] = (
    {"uniform": [0.0, 1.0]},
    {"loguniform": [1e-4, 1.0]},
    {"int": [1, 8]},
    {"choice": [[c, c] for c in "abcd"]},
)
COUNTS = (10, 15, 20, 30, 40, 60, 100)
FADING = 0.5  # amplitude of an effect over that of the previous one, so its variance is a quarter
NOISE = 0.2  # standard deviation between seeds over that of the first effect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--errors", action="store_true", help="compute errors, which takes fifty times as long")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    importance.RESAMPLES = 50 if given.errors else 2
    right = dict.fromkeys(COUNTS, 0)
    apart = dict.fromkeys(COUNTS, 0)
    for seed in range(given.studies):
        asked, results, first = study(seed, max(COUNTS))
        for count in COUNTS:
            found = list(importance.shares(results[:count], asked).items())
            right[count] += bool(found) and found[0][0] == first
            apart[count] += len(found) > 1 and found[0][1].share - found[1][1].share > math.hypot(
                found[0][1].error, found[1][1].error
            )
    for count in COUNTS:
        line = f"{count:4} trials: first in {right[count] / given.studies:.0%}"
        print(line + (f", apart in {apart[count] / given.studies:.0%}" if given.errors else ""), flush=True)


def study(seed: int, trials: int) -> tuple[dict[str, dict[str, list[Any]]], list[TrialResult], str]:
    """Return the parameters, the trials, and the name of the most important parameter."""
    draw = random.Random(seed)
    asked = {f"p{i}": draw.choice(KINDS) for i in range(draw.randint(2, 6))}
    names = draw.sample(list(asked), len(asked))
    optima = {name: draw.random() for name in names}
    bests = {name: draw.choice("abcd") for name in names}
    sampler = optuna.samplers.RandomSampler(seed) if seed % 2 else optuna.samplers.TPESampler(seed=seed)
    searched = optuna.create_study(direction="maximize", sampler=sampler)
    results: list[TrialResult] = []
    for number in range(trials):
        trial = searched.ask()
        params = {name: suggested(trial, name, each) for name, each in asked.items()}
        value = draw.gauss(0, NOISE) + sum(
            FADING**i * effect(asked[name], params[name], optima[name], bests[name]) for i, name in enumerate(names)
        )
        searched.tell(trial, value)
        results.append(result(number, value, params))
    return asked, (pruned(results) if seed % 4 > 1 else results), names[0]


def suggested(trial: optuna.Trial, name: str, asked: dict[str, list[Any]]) -> Any:
    if "choice" in asked:
        return trial.suggest_categorical(name, [label for label, _ in asked["choice"]])
    ((kind, (low, high)),) = asked.items()
    if kind == "int":
        return trial.suggest_int(name, low, high)
    return trial.suggest_float(name, low, high, log=kind == "loguniform")


def effect(asked: dict[str, list[Any]], value: Any, optimum: float, best: str) -> float:
    """Return the effect of a value, whose standard deviation over the distribution is about 1."""
    if "choice" in asked:
        return float(value == best) / math.sqrt(3 / 16)
    ((kind, (low, high)),) = asked.items()
    log = kind == "loguniform"
    place = (math.log(value / low) / math.log(high / low)) if log else (value - low) / (high - low)
    variance = 1 / 180 + (0.5 - optimum) ** 2 / 3  # of (x - optimum)^2 for x uniform in [0, 1]
    return -((place - optimum) ** 2) / math.sqrt(variance)


def pruned(results: list[TrialResult]) -> list[TrialResult]:
    """Return the same trials, with those below the median of the previous ten pruned."""
    made = []
    for number, one in enumerate(results):
        before = sorted(each.value or 0.0 for each in results[max(0, number - 10) : number])
        behind = before and (one.value or 0.0) < before[len(before) // 2]
        made.append(one.model_copy(update={"state": "PRUNED"}) if behind else one)
    return made


def result(number: int, value: float, params: dict[str, object]) -> TrialResult:
    return TrialResult(
        number=number,
        state="COMPLETE",
        metric="overall_accuracy",
        value=value,
        planned=1,
        backbone="none",
        params=params,
    )


if __name__ == "__main__":
    main()
