"""Compare `sweep` with other tools on equal photographs, weights, cores and hours, by the score on a test split.

    python benchmarks/equal_hours.py --root DATA --weights FILE --hours 0.5 --seeds 3 --fastai FASTAI/bin/python

DATA is a table with splits whose test images have labels: labels.csv with path, split and one column per category.
The lanes are, for each metric, `sweep init` and `sweep run` with nothing but hours (and timm's folder of the network,
beside FILE), `sweep` with the shipped cpu_*.yaml (whose weights lie there, too) and one default training of `sweep`;
then a good recipe around timm (peer_timm.py), and, if --fastai and --autogluon name the Pythons of environments that
have them, fastai's fine_tune (peer_fastai.py) and AutoGluon with its time limit (peer_autogluon.py).
In the end, all train on train and val and predict test, which none of them sees. Each run adds one line of JSON to
--out. Runs that are there are not repeated. The script ends with the table.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peers
import rounds

from trainers.data.table import Category
from trainers.evaluation import bootstrap, metrics

HERE = Path(__file__).resolve().parent
SPACES = HERE.parent / "search_spaces"
SWEEP = (sys.executable, "-m", "sweeper")
METRICS = ("overall_accuracy", "mean_class_accuracy")
ALONE = """\
study: {study}
data: {{layout: table, root: {root}}}
metric: {metric}
budget: {{trials: 1}}
train:
  {{backbone: {backbone}, backbone_args: {arguments}, weights: {weights}, normalize: {{mean: 0.5, std: 0.5}}{sizes}}}
"""


@dataclass(frozen=True)
class Lane:
    """One way to spend the hours, by name; `metric` is the one that it optimizes, if that can be chosen."""

    name: str
    metric: str | None = None

    @property
    def title(self) -> str:
        return f"{self.name}, {self.metric}" if self.metric else self.name


LANES = (
    *(Lane("hours alone", metric) for metric in METRICS),
    Lane("cpu_overall.yaml", "overall_accuracy"),
    Lane("cpu_mean_class.yaml", "mean_class_accuracy"),
    *(Lane("one default training", metric) for metric in METRICS),
    Lane("timm by hand"),
    Lane("fastai fine_tune"),
    Lane("AutoGluon"),
)


# ------------------------------------------------------------------------------------------- running
def run(given: argparse.Namespace, lane: Lane, seed: int) -> Path | None:
    """Run a lane in its own folder and return its predictions, or None if its tool is not installed."""
    folder: Path = given.work / f"{lane.title} {given.hours:g} h {seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if lane.metric is None:
        return _peer(given, lane, seed, folder)
    _sweep(given, lane, seed, folder)
    return final(folder).parent / "predictions.csv"


def final(folder: Path, *, alone: bool = False) -> Path:
    """Return the config.json of the final model of a sweep, or that of its best trial `alone`."""
    found = {
        path: json.loads(path.read_text()) for path in sorted(folder.glob("mlruns/studies/*/finals/*/config.json"))
    }
    if not found:
        sys.exit(f"no final model: see {folder}/log.txt")
    together = [path for path, job in found.items() if job["ensemble"]]
    if not together:
        return next(iter(found))
    best = found[together[-1]]["trial"]
    return (
        next(path for path, job in found.items() if job["trial"] == best and not job["ensemble"])
        if alone
        else together[-1]
    )


def _peer(given: argparse.Namespace, lane: Lane, seed: int, folder: Path) -> Path | None:
    script, python = {
        "timm by hand": ("peer_timm.py", sys.executable),
        "fastai fine_tune": ("peer_fastai.py", given.fastai),
        "AutoGluon": ("peer_autogluon.py", given.autogluon),
    }[lane.name]
    if python is None:
        return None
    out = folder / "predictions.csv"
    named = {"root": given.root, "weights": given.weights, "backbone": given.backbone, "arguments": given.arguments}
    named |= {"size": given.size, "hours": given.hours, "seed": seed, "out": out}
    words = [word for name, value in named.items() for word in (f"--{name}", str(value))]
    _call([python, str(HERE / script), *words], folder)
    return out


def _sweep(given: argparse.Namespace, lane: Lane, seed: int, folder: Path) -> None:
    sets = [f"search.seed={seed}", f"train.seed={seed}"]
    words = ["--devices", "cpu", "--then-best"]
    if lane.name == "one default training":
        space = folder / "space.yaml"
        named = {name: getattr(given, name) for name in ("root", "backbone", "arguments", "weights")}
        sizes = f", image_size: {given.size}, epochs: {given.epochs}"
        space.write_text(ALONE.format(study="question", metric=lane.metric, sizes=sizes, **named))
    elif lane.name == "hours alone":
        space = folder / "space.yaml"
        asked = ["--out", str(space), "--metric", str(lane.metric), "--hours", f"{given.hours:g}"]
        here = ["--weights", str(given.weights.parent / given.backbone), "--devices", "cpu"]
        _call([*SWEEP, "init", str(given.root), *asked, *here], folder)
    else:
        space = SPACES / lane.name
        sets += [f"data.root={given.root}", f"train.weights={given.weights.parent}"]
        words += ["--hours", f"{given.hours:g}"]
    words += [word for each in sets for word in ("--set", each)]
    _call([*SWEEP, "run", str(space), *words], folder)


def _call(command: Sequence[str], folder: Path) -> None:
    """Run a command in a folder, with its output in log.txt there; end this script if it fails."""
    with (folder / "log.txt").open("a") as log:
        ended = subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    if ended.returncode:
        sys.exit(f"{command[1]} exited with code {ended.returncode}: see {folder}/log.txt")


# ------------------------------------------------------------------------------------------- scoring
def scored(table: peers.Table, predictions: Path) -> dict[str, Any]:
    """Return both accuracies of a file of predictions on the test images, with standard errors over images."""
    with predictions.open(newline="") as file:
        said = {line["path"]: line for line in csv.DictReader(file)}
    rows = table.split("test")
    categories = [Category(name, tuple(each)) for name, each in zip(table.categories, table.classes, strict=True)]
    chosen = [[said[name][category.name] for category in categories] for name in rows.names]
    logits = np.concatenate(
        [
            np.array([[float(line[k] == name) for name in category.classes] for line in chosen])
            for k, category in enumerate(categories)
        ],
        axis=1,
    )
    labels = np.array(rows.labels)
    found = metrics.scores(logits, labels, categories, loss=0.0)
    errors = bootstrap.standard_errors(bootstrap.resample(logits, labels, categories))
    return {metric: (found.value(metric), errors[metric]) for metric in METRICS}


def measure(given: argparse.Namespace) -> None:
    """Run the lanes that --out lacks, seed by seed, so that an interruption leaves complete rounds."""
    table = peers.read(given.root)
    done = {(one["lane"], one["hours"], one["seed"]) for one in rounds.recorded(given.out)}
    for seed in range(given.seeds):
        for lane in [lane for lane in LANES if lane.name in given.lanes]:
            if (lane.title, given.hours, seed) in done:
                continue
            began = time.monotonic()
            if (predictions := run(given, lane, seed)) is None:
                print(f"{lane.title}: skipped, no Python with it is named", flush=True)
                continue
            line = {"lane": lane.title, "hours": given.hours, "seed": seed, "took": time.monotonic() - began}
            line |= {"found": scored(table, predictions), "where": rounds.hardware()}
            if lane.metric:
                one = final(predictions.parents[5], alone=True).parent / "predictions.csv"
                line |= {"alone": scored(table, one)}
            with given.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def lines(runs: Sequence[dict[str, Any]], hours: float) -> Iterator[list[object]]:
    """Yield a line per lane: means over seeds with standard errors, and the standard error of one run over images."""
    for lane in LANES:
        mine = [one for one in runs if (one["lane"], one["hours"]) == (lane.title, hours)]
        if mine:
            cells = [rounds.spread([one["found"][metric][0] for one in mine]) for metric in METRICS]
            errors = [f"{np.mean([one['found'][metric][1] for one in mine]):.4f}" for metric in METRICS]
            took = rounds.spread([one["took"] / 3600 for one in mine], 2)
            yield [lane.title, len(mine), took, cells[0], errors[0], cells[1], errors[1]]
            if any(one.get("alone", one["found"]) != one["found"] for one in mine):
                single = [rounds.spread([one["alone"][metric][0] for one in mine]) for metric in METRICS]
                yield [f"{lane.title}: its best model alone", len(mine), "", single[0], "", single[1], ""]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--root", type=Path, default=Path("../shared/data/clothing"))
    ask.add_argument("--weights", type=Path, default=Path("../shared/weights/mobilenetv2_100_same.safetensors"))
    ask.add_argument("--backbone", default="mobilenetv2_100")
    ask.add_argument("--arguments", default='{"pad_type": "same"}', help="of timm.create_model, as JSON")
    ask.add_argument("--size", type=int, default=160, help="pixels, for lanes that do not choose a size")
    ask.add_argument("--epochs", type=int, default=12, help="epochs of the one default training")
    ask.add_argument("--hours", type=float, default=0.5)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--lanes", nargs="*", default=[lane.name for lane in LANES])
    ask.add_argument("--fastai", help="the Python of an environment that has fastai")
    ask.add_argument("--autogluon", help="the Python of an environment that has autogluon.multimodal")
    ask.add_argument("--work", type=Path, default=Path("mlruns/equal_hours"), help="holds one folder per run")
    ask.add_argument("--out", type=Path, default=Path("mlruns/equal_hours.jsonl"))
    given = ask.parse_args()
    for name in ("root", "weights", "work", "out"):
        setattr(given, name, getattr(given, name).resolve())
    given.work.mkdir(parents=True, exist_ok=True)
    measure(given)
    print(rounds.hardware(), "\n")
    of = [f"{metric}{suffix}" for metric in METRICS for suffix in ("", ", error over images")]
    print(rounds.table(["lane", "seeds", "hours", *of], lines(rounds.recorded(given.out), given.hours)))


if __name__ == "__main__":
    main()
