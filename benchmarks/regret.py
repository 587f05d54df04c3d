"""Measure how far from the best configuration a search ends after 5, 10, 20 and 50 trials, on recorded trainings.

    python benchmarks/regret.py record --root ../shared/data/clothing --out mlruns/regret.jsonl
    python benchmarks/regret.py simulate

The first command trains configurations, the second runs searches on a surrogate of these trainings.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import rounds
import torch
from matplotlib import pyplot
from optuna.distributions import BaseDistribution
from safetensors.numpy import save_file
from surrogate import Array, Params, Surrogate, fitted

from sweeper.search.optimizer import Optimizer
from sweeper.space import spec, yaml_io
from sweeper.space.space import Space
from sweeper.space.tree import flow
from sweeper.trial import TrialResult
from trainers.data_config import DataConfig
from trainers.evaluation import metrics
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data
from trainers.train import train

SPACE = """\
study: regret
data: {layout: table, root: data/clothing}
metric: overall_accuracy
budget: {trials: 50}
train:
  backbone: test_byobnet
  pretrained: false
  image_size: 24
  loss:
    choice:
      - {name: cross_entropy, label_smoothing: {uniform: [0.0, 0.3]}}
      - {name: focal, gamma: {uniform: [0.0, 4.0]}}
  optimizer: {name: adamw, lr: {loguniform: [1e-4, 1e-1]}, weight_decay: {loguniform: [1e-3, 1.0]}}
  schedule: {name: cosine, warmup_epochs: {int: [0, 4]}}
  augment: {horizontal_flip: 0.5, random_shift: {uniform: [0.0, 0.4]}, random_erasing: {uniform: [0.0, 0.6]}}
  balanced_sampling: {uniform: [0.0, 1.0]}
  tta: {flip: false, scales: [1.0]}
  epochs: 6
  batch_size: 32
"""
TRAIN, VAL = 400, 400  # photographs; all others measure the true score ("worth") of a configuration
EVEN = NEAR = 40
SPREAD = 0.15  # numbers of configurations drawn evenly and near the defaults; their spread as a share of a range
SEEDS = 3
EPOCHS, RUNGS = 6, (1, 3)
BUDGETS = (5, 10, 20, 50)  # full trainings
TOP = 4  # at most this number of trials is confirmed
RECORDED = Path(__file__).with_suffix(".jsonl")


def opened(search: str = "") -> tuple[spec.Search, Space]:
    """Return the search settings and the wide space of the trainings, with `search` as a line of YAML."""
    read = yaml_io.read(Path("regret.yaml"), text=SPACE + search)
    return read.search, Space(read, ())


def distributions(wide: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of all parameters, including those of all branches."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(20)]
    for trial in trials:
        wide.suggest(trial)
    return {name: one for trial in trials for name, one in trial.distributions.items()}


# ---------------------------------------------------------------------------------------- the recording
def configurations() -> list[Params]:
    """Return the configurations to train: half of them drawn evenly, the others near the defaults."""
    search, wide = opened("search: {sampler: random, seed: 1}\n")
    optimizer = Optimizer(search, wide)
    even = [optimizer.ask()[1] for _ in range(EVEN)]
    known = {name: one for trial in optimizer.own_trials() for name, one in trial.distributions.items()}
    rng = np.random.default_rng(0)
    around = [*wide.default(), *(near(wide, known, rng) for _ in range(NEAR - 1))]
    return [params for pair in zip(around, even, strict=True) for params in pair]  # in turn


def near(wide: Space, known: Mapping[str, Any], rng: np.random.Generator) -> Params:
    """Return a configuration near the defaults. Three out of four choices keep their default."""
    (usual,) = wide.default()

    def drawn(name: str, values: Any) -> Any:
        if isinstance(values, optuna.distributions.CategoricalDistribution):
            at = values.choices.index(usual[name])
            return values.choices[at if rng.random() < 0.75 else int(rng.integers(len(values.choices)))]
        scale = optuna._transform._SearchSpaceTransform({name: values}, transform_0_1=True)
        middle = scale.transform({name: usual[name]})[0] if name in usual else 0.5
        return scale.untransform(np.clip([middle + rng.normal(0, SPREAD)], 0, 1))[name]

    study = optuna.create_study()
    study.enqueue_trial({name: drawn(name, values) for name, values in known.items()})
    return wide.suggest(study.ask())


def photographs(root: Path, cache: Path) -> Data:
    """Return the photographs in new splits: train, val, and as test all others, which measure the worth."""
    data = Data.open(DataConfig(layout="table", root=str(root), size=64), cache)
    order = np.random.default_rng(0).permutation(len(data.table.rows)).tolist()
    splits = dict(zip(order, ["train"] * TRAIN + ["val"] * VAL, strict=False))
    rows = tuple(replace(row, split=splits.get(n, "test")) for n, row in enumerate(data.table.rows))
    return Data(replace(data.table, rows=rows), data.cache)


def trained(data: Data, params: Params, seed: int, keep: Path) -> dict[str, Any]:
    """Train, and return the val score after each epoch and the test score. Save the logits of both to `keep`."""
    recipe = opened()[1].recipe(params).with_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        epochs = list(train(recipe, data, Path(folder)))
        model = Path(folder) / "model.safetensors"
        logits = {split: predict(recipe, data, model, split=split) for split in ("val", "test")}
    keep.parent.mkdir(parents=True, exist_ok=True)
    save_file({split: given.astype(np.float16) for split, given in logits.items()}, keep)
    labels = data.labels(data.table.indices("test"))
    worth = metrics.scores(logits["test"], labels, data.categories, loss=0.0).overall_accuracy
    return {"val": [epoch.value(recipe.metric) for epoch in epochs], "test": worth}


def record(given: argparse.Namespace) -> None:
    """Train the runs that the output lacks, seed by seed, so that an interruption leaves complete rounds."""
    torch.set_num_threads(1)
    data, asked = photographs(given.root, given.cache), configurations()
    done = {(one["number"], one["seed"]) for one in rounds.recorded(given.out)}
    for number, seed in ((n, s) for s in range(SEEDS) for n in range(len(asked)) if (n, s) not in done):
        keep = given.logits / f"{number}-{seed}.safetensors"
        found = {"number": number, "seed": seed, "params": asked[number], **trained(data, asked[number], seed, keep)}
        with given.out.open("a") as file:
            file.write(json.dumps(found) + "\n")


# ---------------------------------------------------------------------------------------- the simulation
@dataclass(frozen=True)
class World:
    """A simulated search problem: the surrogate, the worth of the best configuration, and the start of a search."""

    surrogate: Surrogate
    best: float  # worth
    start: Params  # tried first
    prior: str  # of search.prior, as YAML

    def curve(self, params: Params, rng: np.random.Generator) -> tuple[list[float], float]:
        """Simulate one training, and return the val score after each epoch and the configuration's regret."""
        *val, worth = self.surrogate.expected([params])[0]
        return [float(one) for one in np.array(val) + self.surrogate.noise(rng)], float(self.best - worth)


class Told(NamedTuple):
    """A trial of a search, with the number of `epochs` that the search had trained by then."""

    epochs: int
    value: float  # on val
    regret: float


Regrets = dict[str, tuple[Array, Array]]
"""The mean regret of each lane at each budget, and its standard error."""
Search = Callable[[World, int], Iterable[Told]]
"""A search with a seed. It yields trials endlessly, or for the epochs of the largest budget."""
Lane = Callable[[World, int], list[float]]
"""Returns, for a seed, the regret of the chosen configuration at each budget."""


def by_value(search: Search) -> Lane:
    """Return a lane that chooses the trial that is best on val."""

    def run(world: World, seed: int) -> list[float]:
        found: list[float] = []
        best: Told | None = None
        for told in search(world, seed):
            while best and len(found) < len(BUDGETS) and told.epochs > BUDGETS[len(found)] * EPOCHS:
                found.append(best.regret)
            best = told if best is None or told.value > best.value else best
        assert best
        return found + [best.regret] * (len(BUDGETS) - len(found))

    return run


def searched(world: World, search: str, seed: int) -> list[tuple[Params, Told]]:
    """Return the trials of a search by this package, with the default first and without pruning."""
    rng = np.random.default_rng(seed)
    asked = search.replace("PRIOR", world.prior)
    optimizer = Optimizer(*opened(f"search: {{pruner: none, seed: {seed}, {asked}}}\n"))
    found: list[tuple[Params, Told]] = []
    for number in range(max(BUDGETS)):
        _, params = optimizer.ask(None if number else world.start)
        val, regret = world.curve(params, rng)
        optimizer.tell(ended(number, params, val[-1]))
        found.append((params, Told((number + 1) * EPOCHS, val[-1], regret)))
    return found


def ours(search: str) -> Lane:
    return by_value(lambda world, seed: [told for _, told in searched(world, search, seed)])


def confirmed(search: str, share: float) -> Lane:
    """Return a lane with fewer trials that spends this share of the budget on new seeds of the best TOP trials."""

    def run(world: World, seed: int) -> list[float]:
        rng, trials = np.random.default_rng([seed, 1]), searched(world, search, seed)
        found = []
        for budget in BUDGETS:
            spent = round(share * budget)
            best = sorted(trials[: budget - spent], key=lambda one: -one[1].value)[: min(TOP, spent)]
            means = [
                np.mean([world.curve(params, rng)[0][-1] for _ in range(spent // len(best))]) for params, _ in best
            ]
            found.append(best[int(np.argmax(means))][1].regret)
        return found

    return run


def ended(number: int, params: Params, value: float) -> TrialResult:
    """Return the result of a complete trial."""
    return TrialResult(
        number=number,
        state="COMPLETE",
        metric="overall_accuracy",
        value=value,
        epoch=EPOCHS,
        epochs=EPOCHS,
        planned=EPOCHS,
        backbone="test_byobnet",
        params=dict(params),
        seconds=1.0,
    )


def optunas(world: World, seed: int) -> Iterator[Told]:
    """Search with Optuna's TPE in its own settings, without a trial of the default."""
    rng, (_, wide) = np.random.default_rng(seed), opened()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for number in range(max(BUDGETS)):
        trial = study.ask()
        val, regret = world.curve(wide.suggest(trial), rng)
        study.tell(trial, val[-1])
        yield Told((number + 1) * EPOCHS, val[-1], regret)


def drawn_evenly(seed: int) -> Iterator[Params]:
    """Yield configurations drawn evenly, without end, as other schedulers draw them."""
    _, wide = opened()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    while True:
        yield wide.suggest(study.ask())


def evenly(world: World, seed: int) -> Iterator[Told]:
    """Search at random, without pruning."""
    rng = np.random.default_rng(seed)
    for number, params in enumerate(drawn_evenly(seed), 1):
        val, regret = world.curve(params, rng)
        yield Told(number * EPOCHS, val[-1], regret)
        if number == max(BUDGETS):
            return


def asha(world: World, seed: int) -> Iterator[Told]:
    """Search with ASHA that stops trials, as Ray Tune's: after 1 and 3 epochs, the best third so far continues."""
    rng, rungs = np.random.default_rng(seed), {rung: list[float]() for rung in RUNGS}
    epochs = 0
    for params in drawn_evenly(seed):
        val, regret = world.curve(params, rng)
        last = EPOCHS
        for rung, shown in rungs.items():
            shown.append(val[rung - 1])
            if val[rung - 1] < np.percentile(shown, 100 - 100 / 3):
                last = rung
                break
        epochs += last
        yield Told(epochs, val[last - 1], regret)
        if epochs >= max(BUDGETS) * EPOCHS:
            return


def hyperband(world: World, seed: int) -> Iterator[Told]:
    """Search with Hyperband (Li et al. 2018) of six epochs by thirds.

    It alternates between a bracket of three trials, of which one continues after two epochs, and two full trials.
    """
    rng, drawn = np.random.default_rng(seed), drawn_evenly(seed)
    epochs = 0
    while epochs < max(BUDGETS) * EPOCHS:
        bracket = [world.curve(next(drawn), rng) for _ in range(3)]
        for val, regret in bracket:
            epochs += 2
            yield Told(epochs, val[1], regret)
        val, regret = max(bracket, key=lambda one: one[0][1])
        epochs += EPOCHS - 2
        yield Told(epochs, val[-1], regret)
        for _ in range(2):
            val, regret = world.curve(next(drawn), rng)
            epochs += EPOCHS
            yield Told(epochs, val[-1], regret)


GOOD, BAD = "the family's default", "a bad default"
OFF, NEAR_DEFAULT = "the default, then TPE (prior: off)", "the default, draws near it, then TPE"
MARKS = "osPXD^v<"
LANES: dict[str, Lane] = {
    OFF: ours("prior: off"),
    NEAR_DEFAULT: ours("prior: PRIOR"),
    "the same, a fifth of the budget confirms": confirmed("prior: PRIOR", 0.2),
    "the same, two fifths confirm": confirmed("prior: PRIOR", 0.4),
    "Optuna's own TPE": by_value(optunas),
    "random": by_value(evenly),
    "Hyperband": by_value(hyperband),
    "ASHA that stops, as Ray's": by_value(asha),
}
FROM_DEFAULT = tuple(LANES)[:4]


def regrets(world: World, lane: str, seed: int) -> list[float]:
    """Run a lane by its name, which can be sent to another process."""
    return LANES[lane](world, seed)


def worlds(trainings: Sequence[Mapping[str, Any]]) -> dict[str, World]:
    """Return the worlds of the trainings: started from the family's defaults, and from the worst on record."""
    _, wide = opened()
    known = distributions(wide)
    surrogate = fitted(trainings, known)
    drawn = drawn_evenly(0)
    sampled = [*(next(drawn) for _ in range(5000)), *(one["params"] for one in trainings)]
    worth = surrogate.expected(sampled)[:, -1]
    (default,) = wide.default()
    recorded = [one["params"] for one in trainings]
    worst = min(recorded, key=lambda params: float(surrogate.expected([params])[0, -1]))
    best = float(worth.max())
    return {
        GOOD: World(surrogate, best, default, "{}"),
        BAD: World(surrogate, best, worst, priors(worst)),
    }


def priors(params: Params) -> str:
    """Return `search.prior` around a configuration, as YAML."""
    return flow({name: {"around": value} for name, value in params.items()})


def simulate(given: argparse.Namespace) -> None:
    """Search the recorded trainings, and print the regret of each lane."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pool = ProcessPoolExecutor(given.jobs, initializer=optuna.logging.set_verbosity, initargs=(optuna.logging.ERROR,))
    trainings = rounds.recorded(given.recorded)
    found: dict[str, Regrets] = {}
    for name, world in worlds(trainings).items():
        off = world.best - world.surrogate.expected([world.start])[0, -1]
        spread = world.surrogate.noises[:, -2].std()
        print(f"\n{len(trainings)} trainings, {name}: best {world.best:.4f}, start {off:.4f} from it,", end=" ")
        print(f"noise of val {spread:.4f}, explained {world.surrogate.explained:.2f}\n")
        print("| | " + " | ".join(f"{budget} trials" for budget in BUDGETS) + " |")
        print("|---|" + "--:|" * len(BUDGETS))
        found[name] = {}
        for lane in LANES if name == GOOD else FROM_DEFAULT:  # the others do not use a default
            kept = np.array(list(pool.map(partial(regrets, world, lane), range(given.runs))))
            found[name][lane] = kept.mean(0), kept.std(0, ddof=1) / given.runs**0.5
            cells = (f"{mean:.4f} ± {error:.4f}" for mean, error in zip(*found[name][lane], strict=True))
            print(f"| {lane} | " + " | ".join(cells) + " |", flush=True)
    if given.figure:
        draw(found, given.figure, len(trainings))
    bars(found)


def bars(found: Mapping[str, Regrets]) -> None:
    """Print the gain of the prior with a good default, and its cost with a bad one."""
    for name, trials, limit in ((GOOD, 10, 0.5), (BAD, 50, 1.1)):
        prior, off = (found[name][lane][0][BUDGETS.index(trials)] for lane in (NEAR_DEFAULT, OFF))
        print(f"{name}, {trials} trials: {prior / off:.2f} of the regret without a prior; target: at most {limit}")


def draw(found: Mapping[str, Regrets], path: Path, trainings: int) -> None:
    """Draw the regret of each lane over the budget, with one panel per default."""
    figure, axes = pyplot.subplots(1, len(found), figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, (name, lanes) in zip(axes, found.items(), strict=True):
        for lane, (middle, error) in lanes.items():
            number = list(LANES).index(lane)
            axis.errorbar(BUDGETS, middle, error, color=f"C{number}", marker=MARKS[number], markersize=4, label=lane)
        axis.set(xscale="log", yscale="log", title=f"start: {name}", xlabel="budget, full trainings")
        axis.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy below the best")
    axes[0].legend(fontsize=7)
    figure.suptitle(f"{trainings} recorded trainings, mean and standard error of the searches", fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ask.add_subparsers(required=True)
    recording = parts.add_parser("record", help="train the runs that the record lacks")
    recording.add_argument("--root", type=Path, default=Path("../shared/data/clothing"))
    recording.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    recording.add_argument("--out", type=Path, default=RECORDED)
    recording.add_argument("--logits", type=Path, default=Path("mlruns/regret"), help="a folder for noise.py")
    recording.set_defaults(run=record)
    simulating = parts.add_parser("simulate", help="search the recorded trainings")
    simulating.add_argument("--recorded", type=Path, default=RECORDED)
    simulating.add_argument("--runs", type=int, default=200)
    simulating.add_argument("--jobs", type=int, default=1, help="processes")
    simulating.add_argument("--figure", type=Path, help="the file for a figure of the regrets")
    simulating.set_defaults(run=simulate)
    given = ask.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
