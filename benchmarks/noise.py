"""Measure how reliable val is: intervals, the winner's curse, and the gains of confirmation, ensembles, correction,
and of a second seed.

    python benchmarks/regret.py record --logits mlruns/regret
    python benchmarks/noise.py --logits mlruns/regret

Nothing is trained. The logits of every recorded training on the photographs that it did not see are split many
times into a val of --val images and the rest, which stands for the truth.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regret
import rounds
from safetensors.numpy import load_file

from sweeper.statistics import ensemble
from trainers.data.table import Category
from trainers.evaluation import bootstrap, metrics
from trainers.evaluation.logit_adjustment import Fitting
from trainers.optim import frequency

METRICS = ("overall_accuracy", "mean_class_accuracy")
STUDY, TOP, MEMBERS = 20, 4, 4  # trials per study; confirmed trials; members of an ensemble
STUDIES = (2, 5, 10, 20)  # trials per study in which a pair of models is chosen
NORMAL = 1.96  # standard errors of a 95 % interval
Scores = dict[str, float]


@dataclass(frozen=True)
class Recorded:
    """The logits of trainings on photographs that none of them saw."""

    logits: dict[tuple[int, int], np.ndarray]  # [N, sum C] by configuration and seed
    labels: np.ndarray  # [N, D]
    categories: tuple[Category, ...]
    prior: np.ndarray  # [sum C], of the training images

    def scores(self, one: tuple[int, int], rows: np.ndarray) -> Scores:
        return self.judged(self.logits[one][rows], rows)

    def judged(self, logits: np.ndarray, rows: np.ndarray) -> Scores:
        """Return both accuracies of logits on these rows."""
        found = metrics.scores(logits, self.labels[rows], self.categories, loss=0.0)
        return {metric: found.value(metric) for metric in METRICS}


def opened(given: argparse.Namespace) -> Recorded:
    data = regret.photographs(given.root, given.cache)
    rows = [row for split in ("val", "test") for row in data.table.indices(split)]
    found = {}
    for one in rounds.recorded(given.recorded):
        file = given.logits / f"{one['number']}-{one['seed']}.safetensors"
        parts = load_file(file)
        found[one["number"], one["seed"]] = np.concatenate([parts["val"], parts["test"]]).astype(np.float32)
    prior = frequency.log_prior(data.counts(data.table.indices("train")))
    return Recorded(found, data.labels(rows), data.table.categories, prior)


def splits(
    recorded: Recorded, images: int, draws: int
) -> Iterable[tuple[np.random.Generator, np.ndarray, np.ndarray]]:
    """Yield, for each draw, a generator for further draws, the rows of val, and the rows of the rest."""
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(recorded.labels))
        yield rng, np.sort(order[:images]), np.sort(order[images:])


# ------------------------------------------------------------------------------------------ intervals
def coverage(recorded: Recorded, images: int, draws: int) -> dict[str, list[float]]:
    """Return, for each val, the share of 95 % intervals of trials, and of differences of two, that hold the truth.

    The rest has an error of its own, so the variance of an interval is multiplied by 1 + images of val / images of
    the rest.
    """
    wider = (1 + images / (len(recorded.labels) - images)) ** 0.5
    found = defaultdict(list)
    for rng, val, rest in splits(recorded, images, draws):
        some = [list(recorded.logits)[n] for n in rng.choice(len(recorded.logits), 6, replace=False)]
        samples = [
            bootstrap.resample(recorded.logits[one][val], recorded.labels[val], recorded.categories) for one in some
        ]
        off = [_difference(recorded.scores(one, val), recorded.scores(one, rest)) for one in some]
        for metric in METRICS:
            drawn = np.array([each[metric] for each in samples], dtype=np.float64)  # [trials, RESAMPLES]
            errors = np.array([each[metric] for each in off])
            held = np.abs(errors) <= NORMAL * wider * drawn.std(1, ddof=1)
            apart = (drawn[::2] - drawn[1::2]).std(1, ddof=1)
            held_pairs = np.abs(errors[::2] - errors[1::2]) <= NORMAL * wider * apart
            found[f"{metric}, a trial"].append(float(held.mean()))
            found[f"{metric}, the difference of two trials"].append(float(held_pairs.mean()))
    return found


def _difference(one: Scores, other: Scores) -> Scores:
    return {metric: one[metric] - other[metric] for metric in one}


# ------------------------------------------------------------------------------- what a winner is worth
def winners(recorded: Recorded, metric: str, images: int, draws: int) -> dict[str, list[float]]:
    """Return, for each way of choosing, the claimed and true values of the winners of studies of STUDY trials."""
    seeds = sorted({seed for _, seed in recorded.logits})
    whole = [
        n for n in {number for number, _ in recorded.logits} if all((n, seed) in recorded.logits for seed in seeds)
    ]
    found = defaultdict(list)
    for rng, val, rest in splits(recorded, images, draws):
        trials = [(int(n), seeds[0]) for n in rng.choice(whole, STUDY, replace=False)]
        shown = {one: recorded.scores(one, val)[metric] for one in trials}
        for name, figure in judged(recorded, metric, shown, seeds[1:], val, rest).items():
            found[name].append(figure)
    return found


def judged(
    recorded: Recorded,
    metric: str,
    shown: Mapping[tuple[int, int], float],
    seeds: Sequence[int],
    val: np.ndarray,
    rest: np.ndarray,
) -> Scores:
    """Judge one study: `shown` has its trials with their values on val, `seeds` are the new seeds that confirm."""
    order = sorted(shown, key=lambda one: -shown[one])
    best = order[0]

    def worth(one: tuple[int, int]) -> float:
        return recorded.scores(one, rest)[metric]

    def mean(number: int, rows: np.ndarray) -> float:
        return float(np.mean([recorded.scores((number, seed), rows)[metric] for seed in seeds]))

    again = max((number for number, _ in order[:TOP]), key=lambda number: mean(number, val))
    return {
        "best on val: its value on val": shown[best],
        "best on val: its value on the rest": worth(best),
        "best on val: its configuration with other seeds, on the rest": mean(best[0], rest),
        "winner of the confirmation: the mean of its new seeds on val": mean(again, val),
        "winner of the confirmation: the same on the rest": mean(again, rest),
        "best of all on the rest": max(worth(one) for one in shown),
        "ensemble": recorded.judged(together(recorded, metric, order, val, MEMBERS)[rest], rest)[metric],
        "best on val, corrected": corrected(recorded, metric, best, val, rest),
    }


def together(
    recorded: Recorded, metric: str, order: Sequence[tuple[int, int]], val: np.ndarray, most: int
) -> np.ndarray:
    """Return the mean logits, on all rows, of at most `most` members that do best together on val."""
    judge = ensemble.Judge(recorded.labels[val], recorded.categories, metric, (), minimize=False)
    known = {at: recorded.logits[one] for at, one in enumerate(order)}
    shares = ensemble.select({at: one[val] for at, one in known.items()}, 0, judge.score, most)
    return ensemble.mean(known, shares)


# ------------------------------------------------------------------------------------------ two models
def pairs(recorded: Recorded, metric: str, images: int, draws: int, trials: int) -> dict[str, list[float]]:
    """Return the true values of pairs of models in studies of this number of trials, the default among them."""
    found = defaultdict(list)
    numbers = [number for number in {number for number, _ in recorded.logits} if number]
    for rng, val, rest in splits(recorded, images, draws):
        some = [0, *map(int, rng.choice(numbers, trials - 1, replace=False))]
        seeds = {number: rng.permutation(regret.SEEDS)[:2].tolist() for number in some}
        order = sorted(some, key=lambda number: -recorded.scores((number, seeds[number][0]), val)[metric])
        first, again = ((order[0], seed) for seed in seeds[order[0]])
        own = [(number, seeds[number][0]) for number in order]
        twice = (recorded.logits[first] + recorded.logits[again]) / 2
        found["the best alone"].append(recorded.scores(first, rest)[metric])
        pair = together(recorded, metric, own, val, 2)
        found["the pair that does best on val"].append(recorded.judged(pair[rest], rest)[metric])
        found["the best with two seeds"].append(recorded.judged(twice[rest], rest)[metric])
    return found


def corrected(recorded: Recorded, metric: str, one: tuple[int, int], val: np.ndarray, rest: np.ndarray) -> float:
    """Return the value on the rest with a correction whose strength is fitted on val."""
    fits = [
        Fitting(recorded.logits[one][rows], recorded.labels[rows], recorded.prior, recorded.categories)
        for rows in (val, rest)
    ]
    return fits[1].at(fits[0].fit(metric, 0.0).tau, 0.0).value(metric)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", type=Path, default=Path("../shared/data/clothing"))
    ask.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    ask.add_argument("--recorded", type=Path, default=regret.RECORDED)
    ask.add_argument("--logits", type=Path, default=Path("mlruns/regret"))
    ask.add_argument("--val", type=int, default=1000, help="number of images")
    ask.add_argument("--draws", type=int, default=200)
    given = ask.parse_args()
    recorded = opened(given)
    trainings, photographs = len(recorded.logits), len(recorded.labels)
    print(f"{trainings} trainings, val of {given.val} out of {photographs} photographs; {rounds.hardware()}")
    print("\n| 95 % interval of | holds the truth |\n|---|--:|")
    for name, held in coverage(recorded, given.val, given.draws).items():
        print(f"| {name} | {rounds.spread(held)} |")
    for metric in METRICS:
        print(f"\n| {metric}, studies of {STUDY} trials | mean |\n|---|--:|")
        for name, figures in winners(recorded, metric, given.val, given.draws).items():
            print(f"| {name} | {rounds.spread(figures)} |")
        print(f"\n| {metric}, two models | " + " | ".join(f"{each} trials" for each in STUDIES) + " |")
        print("|---|" + "--:|" * len(STUDIES))
        shown = [pairs(recorded, metric, given.val, given.draws, each) for each in STUDIES]
        for name in shown[0]:
            print(f"| {name} | " + " | ".join(rounds.spread(one[name]) for one in shown) + " |")


if __name__ == "__main__":
    main()
