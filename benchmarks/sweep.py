"""Run the same search twice: 50 trials by `sweep run`, and by a plain script with TPE and the median pruner.

    python benchmarks/sweep.py --root DATA --weights FILE --out FOLDER [--rounds 3] [--quick] [--device cpu]

DATA is a data set in the table layout. Without it, one is drawn. Some of its images are copied to FOLDER as train and
val, and the remaining labelled ones as test. Both lanes have the same ranges, epochs and weights, and take turns on
the whole machine. Every trial's best epoch is judged on test afterwards. The script compares the test accuracy of the
trial that is best on val so far, over the seconds since the command was started, including imports and decoding.

The gate (benchmarks/question.py): one fixed configuration trained both ways must agree on test within two standard
errors, and both must read the same labels. Finished rounds are kept in FOLDER, and the same command resumes.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import plain
import question
import rounds

from trainers.config import Recipe
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data

HERE = Path(__file__).parent
FIFTH = 5  # the target: the plain script's result in a fifth of its time


@dataclass(frozen=True)
class Point:
    """A finished trial: when it finished, its value on val, and its accuracy on test."""

    seconds: float
    val: float
    test: float
    error: float  # standard error of `test`
    epochs: int


# ------------------------------------------------------------------------------------------- the lanes
def by_hand(given: argparse.Namespace, data: Path, out: Path, seed: int) -> list[Point]:
    """Run the plain script in a separate process."""
    words = [sys.executable, str(HERE / "plain.py"), "--root", str(data), "--out", str(out), "--seed", str(seed)]
    words += ["--weights", given.weights, "--trials", str(given.trials), "--epochs", str(given.epochs)]
    words += ["--size", str(given.size), "--device", given.device, "--began", str(time.time())]
    subprocess.run(words, check=True)
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    test = plain.read(data)["test"]
    return [
        Point(
            line["seconds"],
            line["value"],
            *question.scored(question.right(given, test, out / f"{line['trial']}.pt")),
            line["epochs"],
        )
        for line in lines
    ]


def by_sweep(given: argparse.Namespace, data: Path, out: Path, seed: int) -> list[Point]:
    """Run `sweep run` as a user types it."""
    out.mkdir(parents=True)
    (out / "question.yaml").write_text(question.space(given, data, given.trials, seed))
    began = time.time()
    words = [
        sys.executable,
        "-m",
        "sweeper.cli",
        "run",
        str(out / "question.yaml"),
        "--devices",
        rounds.devices(given.device),
    ]
    slots = ["--slots", given.slots] if given.device == "cpu" else ["--slots", "auto"]
    place = {"SWEEP_HOME": str(out / "mlruns"), "PYTHONPATH": str(HERE.parent)}
    subprocess.run([*words, *slots], check=True, cwd=out, env={**os.environ, **place}, stdout=subprocess.DEVNULL)
    points = []
    for folder in sorted((out / "mlruns/studies/question/trials").iterdir()):
        result = json.loads((folder / "result.json").read_text())
        recipe = Recipe.model_validate(json.loads((folder / "config.json").read_text())["recipe"])
        table = Data.open(recipe.data, out / "mlruns/cache")
        logits = predict(recipe, table, folder / "model.safetensors", split="test")
        ended = (folder / "result.json").stat().st_mtime
        points.append(
            Point(ended - began, result["value"], *question.scored(question.answers(table, logits)), result["epochs"])
        )
    return points


# ------------------------------------------------------------------------------------------- the answer
def curve(points: list[Point]) -> list[tuple[float, Point]]:
    """Return the best trial by val so far, at each time when it changed."""
    found: list[tuple[float, Point]] = []
    for point in sorted(points, key=lambda one: one.seconds):
        if not found or point.val > found[-1][1].val:
            found.append((point.seconds, point))
    return found


def reached(points: list[Point], least: float) -> float:
    """Return the seconds after which the best so far always has at least `least` on test; infinite if never."""
    since = math.inf
    for seconds, point in curve(points):
        since = min(since, seconds) if point.test >= least else math.inf
    return since


def first(points: list[Point], count: int) -> tuple[float, Point]:
    """Return the seconds after which `count` trials had finished, and the best of them by val."""
    some = sorted(points, key=lambda one: one.seconds)[:count]
    return some[-1].seconds, max(some, key=lambda one: one.val)


def within(points: list[Point], seconds: float) -> Point:
    """Return the best by val of the trials that had finished by then, or a point with value 0 if none had."""
    some = [point for point in points if point.seconds <= seconds]
    return max(some, key=lambda one: one.val, default=Point(seconds, 0.0, 0.0, 0.0, 0))


def rows(found: dict[str, list[list[Point]]]) -> Iterator[list[object]]:
    """Yield a line per round, then their means."""
    lines = []
    for ours, theirs in zip(found["sweep"], found["plain"], strict=True):
        (end, best), (mine, own) = first(theirs, len(theirs)), first(ours, len(ours))
        early, same = within(ours, end / FIFTH), within(theirs, end / FIFTH)
        lines.append([end, best.test, best.error, early.test, same.test, mine, own.test])
        metric = best.test - best.error
        froms = [f"{reached(points, metric):.0f} s".replace("inf s", "never") for points in (ours, theirs)]
        yield [len(lines) - 1, *_cells(lines[-1]), *froms]
    means = [statistics.mean(column) for column in zip(*lines, strict=True)]
    yield ["mean", *_cells(means), "", ""]


def _cells(line: list[float]) -> list[str]:
    end, best, error, early, same, mine, own = line
    return [f"{end:.0f} s", f"{best:.4f} ± {error:.4f}", f"{early:.4f}", f"{same:.4f}", f"{mine:.0f} s", f"{own:.4f}"]


def met(found: dict[str, list[list[Point]]]) -> tuple[float, float]:
    """Return means over the rounds: test of sweep's choice after a fifth of the script's time, and its target."""
    early, least = [], []
    for ours, theirs in zip(found["sweep"], found["plain"], strict=True):
        end, best = first(theirs, len(theirs))
        early.append(within(ours, end / FIFTH).test)
        least.append(best.test - best.error)
    return statistics.mean(early), statistics.mean(least)


HEADERS = [
    "round",
    "by hand: all trials",
    "test",
    "sweep after a fifth of that",
    "by hand after a fifth",
    "sweep: all trials",
    "test",
    "as good to the end from: sweep",
    "by hand",
]


def drawing(found: dict[str, list[list[Point]]], path: Path) -> None:
    """Draw the curves of both lanes: test accuracy of the best by val so far, over time."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for lane, colour in (("plain", "#c05020"), ("sweep", "#2060a0")):
        for number, points in enumerate(found[lane]):
            steps = [*curve(points), (max(p.seconds for p in points), curve(points)[-1][1])]
            label = {"plain": "plain script", "sweep": "sweep run"}[lane] if number == 0 else None
            axes.step([s for s, _ in steps], [p.test for _, p in steps], where="post", color=colour, label=label)
    axes.set(xlabel="seconds since the command", ylabel="test accuracy of the best by val", xscale="log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def known(given: argparse.Namespace, data: Path) -> dict[str, list[list[Point]]]:
    """Return every round of both lanes, after running the missing ones in turn."""
    found: dict[str, list[list[Point]]] = {"plain": [], "sweep": []}
    for number in range(given.rounds):
        lanes = [("plain", by_hand), ("sweep", by_sweep)]
        for lane, run in lanes if number % 2 == 0 else lanes[::-1]:
            kept = given.out / f"{lane}-{number}.json"
            if not kept.exists():
                shutil.rmtree(given.out / f"{lane}-{number}", ignore_errors=True)
                points = run(given, data, given.out / f"{lane}-{number}", number)
                kept.write_text(json.dumps([asdict(point) for point in points]))
            found[lane].append([Point(**one) for one in json.loads(kept.read_text())])
    return found


def settings() -> argparse.Namespace:
    ask = rounds.arguments(__doc__ or "")
    ask.formatter_class = argparse.RawDescriptionHelpFormatter
    ask.add_argument("--root", type=Path, default=None)
    ask.add_argument("--weights", default="")
    ask.add_argument("--out", type=Path, default=Path("mlruns/benchmark-sweep"))
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--trials", type=int, default=50)
    ask.add_argument("--epochs", type=int, default=4)
    ask.add_argument("--size", type=int, default=40)
    ask.add_argument("--images", type=int, default=800)
    ask.add_argument("--val", type=int, default=300)
    ask.add_argument("--gate", type=int, default=3, help="seeds of the gate")
    ask.add_argument("--slots", default=str(max(1, len(os.sched_getaffinity(0)))))
    ask.add_argument("--search", default="{seed: SEED}", help="the key `search` of the search space")
    given = ask.parse_args()
    if given.quick:
        given.rounds, given.trials, given.epochs, given.images, given.val = 1, 6, 3, 480, 160
        given.gate = 2
    asked = {name: str(value) for name, value in vars(given).items() if name not in ("out", "rounds", "quick")}
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    given.out = given.out.absolute() / f"{'quick' if given.quick else 'whole'}-{name}"
    given.weights = str(Path(given.weights).absolute()) if given.weights else ""
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def main() -> None:
    given = settings()
    data = question.part(given)
    good, words = question.gate(given, data)
    found = known(given, data)
    print(rounds.hardware(given.device))
    print(f"gate: {'held' if good else 'BROKEN'}: {words}\n")
    print(
        f"{given.trials} trials of {given.epochs} epochs, {given.images} images of {given.size} pixels. Test accuracy"
        " of the best trial by val so far. As good: within a standard error of the script's final choice\n"
    )
    lines = list(rows(found))
    print(rounds.table(HEADERS, lines))
    early, least = met(found)
    verdict = rounds.verdict(early, least, at_least=True)
    print(f"\nafter a fifth of the script's time: {early:.4f} (target: at least {least:.4f}): {verdict}")
    drawing(found, given.out / "curves.svg")
    print(f"curves: {given.out / 'curves.svg'}", file=sys.stderr)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
