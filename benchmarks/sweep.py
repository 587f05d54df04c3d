"""Run the same search with several tools: 50 trials by `sweep run`, a plain script, Ray Tune and Syne Tune.

    python benchmarks/sweep.py --root DATA --weights FILE --out FOLDER [--rounds 3] [--quick] [--device cpu]
        [--ray RAY/bin/python] [--syne SYNE/bin/python]

DATA is a data set in the table layout. Without it, one is drawn. Some of its images are copied to FOLDER as train and
val, and the remaining labelled ones as test. All lanes have the same ranges, epochs, weights, first trial and number
of trials side by side, and take turns on the whole machine. The scripts of the others are plain.py, rival_ray.py and
rival_syne.py; the last two need a Python that has the tool (and torch, timm, torchvision and optuna), and are skipped
without one. Every trial's best epoch is judged on test afterwards. The script compares the test accuracy of the trial
that is best on val so far, over the seconds since the command was started, including imports and decoding.

The gate (benchmarks/question.py): one fixed configuration trained by `sweep` and by plain.py must agree on test
within two standard errors, and both must read the same labels. Finished rounds are kept in FOLDER, and the same
command resumes.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import plain
import question
import rounds

from trainers.config import Recipe
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data

HERE = Path(__file__).parent
UNTOLD = ("out", "rounds", "quick", "ray", "syne")  # arguments that do not change a round
SWEEP, PLAIN = "sweep run", "plain script"
FIFTH = 5  # the target: the plain script's result in a fifth of its time


@dataclass(frozen=True)
class Point:
    """A finished trial: when it finished, its value on val, and its accuracy on test."""

    seconds: float
    val: float
    test: float
    error: float  # standard error of `test`
    epochs: int


Found = dict[str, list[list[Point]]]
"""The trials of each round, by lane."""
Run = Callable[[argparse.Namespace, Path, Path, int], list[Point]]


# ------------------------------------------------------------------------------------------- the lanes
def by_script(script: str, python: str, given: argparse.Namespace, data: Path, out: Path, seed: int) -> list[Point]:
    """Run a script with the arguments of plain.py in a separate process."""
    words = [python, str(HERE / script), "--root", str(data), "--out", str(out), "--seed", str(seed)]
    words += ["--weights", given.weights, "--trials", str(given.trials), "--epochs", str(given.epochs)]
    words += ["--size", str(given.size), "--slots", given.slots, "--device", given.device]
    out.mkdir(parents=True)
    with (out / "log.txt").open("w") as log:
        began = ["--began", str(time.time())]
        subprocess.run([*words, *began], check=True, cwd=out, stdout=log, stderr=subprocess.STDOUT)
    test = plain.read(data)["test"]
    images = plain.decoded(test, given.size)
    points = []
    for kept in sorted((out / "trials").glob("*.json")):
        line = json.loads(kept.read_text())
        scored = question.scored(question.right(images, test, given.size, kept.with_suffix(".pt")))
        points.append(Point(line["seconds"], line["value"], *scored, line["epochs"]))
    return sorted(points, key=lambda one: one.seconds)[: given.trials]  # Syne Tune starts one too many


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


def first(points: list[Point], count: int) -> tuple[float, Point]:
    """Return the seconds after which `count` trials had finished, and the best of them by val."""
    some = sorted(points, key=lambda one: one.seconds)[:count]
    return some[-1].seconds, max(some, key=lambda one: one.val)


def within(points: list[Point], seconds: float) -> Point:
    """Return the best by val of the trials that had finished by then, or a point with value 0 if none had."""
    some = [point for point in points if point.seconds <= seconds]
    return max(some, key=lambda one: one.val, default=Point(seconds, 0.0, 0.0, 0.0, 0))


def rows(found: Found) -> Iterator[list[object]]:
    """Yield a line per lane and round, then one with the lane's means."""
    for lane, rounds_of in found.items():
        cells = []
        for number, (points, hand) in enumerate(zip(rounds_of, found[PLAIN], strict=True)):
            end, best = first(points, len(points))
            early = within(points, first(hand, len(hand))[0] / FIFTH).test
            cells.append((end, best.test, early, sum(point.epochs for point in points)))
            yield [lane, number, *_cells(cells[-1], f" ± {best.error:.4f}")]
        means = [statistics.mean(column) for column in zip(*cells, strict=True)]
        yield [lane, "mean", *_cells(means, "")]


def _cells(line: Sequence[float], error: str) -> list[str]:
    end, best, early, epochs = line
    return [f"{end:.0f} s", f"{best:.4f}{error}", f"{early:.4f}", f"{epochs:.0f}"]


def met(found: Found) -> tuple[float, float]:
    """Return means over the rounds: test of sweep's choice after a fifth of the script's time, and its target."""
    early, least = [], []
    for ours, theirs in zip(found[SWEEP], found[PLAIN], strict=True):
        end, best = first(theirs, len(theirs))
        early.append(within(ours, end / FIFTH).test)
        least.append(best.test - best.error)
    return statistics.mean(early), statistics.mean(least)


HEADERS = ["lane", "round", "all trials", "test", "test after a fifth of the plain script's time", "epochs"]


def drawing(found: Found, path: Path) -> None:
    """Draw the curves of all lanes: test accuracy of the best by val so far, over time."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for colour, (lane, rounds_of) in enumerate(found.items()):
        for number, points in enumerate(rounds_of):
            steps = [*curve(points), (max(p.seconds for p in points), curve(points)[-1][1])]
            label = None if number else lane
            axes.step(
                [s for s, _ in steps], [p.test for _, p in steps], where="post", color=f"C{colour}", label=label
            )
    axes.set(xlabel="seconds since the command", ylabel="test accuracy of the best by val", xscale="log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def known(given: argparse.Namespace, data: Path) -> Found:
    """Return every round of all lanes that can run here, after running the missing ones in turn."""
    lanes: dict[str, Run] = {SWEEP: by_sweep, PLAIN: partial(by_script, "plain.py", sys.executable)}
    for name, script, python in (("Ray Tune", "rival_ray.py", given.ray), ("Syne Tune", "rival_syne.py", given.syne)):
        if python is None:
            print(f"{name}: skipped, no Python with it is named", file=sys.stderr)
        else:
            lanes[name] = partial(by_script, script, str(Path(python).absolute()))
    found: Found = {lane: [] for lane in lanes}
    for number in range(given.rounds):
        order = list(lanes.items())
        for lane, run in order if number % 2 == 0 else order[::-1]:
            place = given.out / f"{lane}-{number}".lower().replace(" ", "-")
            kept = place.with_suffix(".json")
            if not kept.exists():
                shutil.rmtree(place, ignore_errors=True)
                kept.write_text(json.dumps([asdict(point) for point in run(given, data, place, number)]))
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
    ask.add_argument("--ray", help="the Python of an environment that has Ray Tune")
    ask.add_argument("--syne", help="the Python of an environment that has Syne Tune")
    ask.add_argument("--search", default="{seed: SEED}", help="the key `search` of the search space")
    given = ask.parse_args()
    if given.quick:
        given.rounds, given.trials, given.epochs, given.images, given.val = 1, 6, 3, 480, 160
        given.gate = 2
    asked = {name: str(value) for name, value in vars(given).items() if name not in UNTOLD}
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
        " of the best trial by val so far\n"
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
