"""Measure time and memory of ten thousand trials in one study, and two hundred thousand images in one data set.

    python benchmarks/scale.py [--quick]

Each figure is the best of two, measured in separate processes so that memory peaks do not mix. The gates: the
leaderboard and the status report every trial in the run folders and the best one, the next trial has the
next number, and cached images equal those that their files decode to.
"""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grown
import rounds

from sweeper.store import paths
from sweeper.store.paths import StudyFolder
from sweeper.tracking import tracker
from sweeper.tracking.reconcile import StudyInfo
from trainers.data.table import Row

NAME = "large"
SIDE = 32  # pixels of an image
DISTINCT = 400  # images with their own content; the others are links to them


# ------------------------------------------------------------------------------------------- trials
def resume(trials: int, *, mlflow: bool = False, hours: float | None = None) -> dict[str, float]:
    """Return the seconds until the first job, with or without MLflow catching up in a thread, and for the next."""
    began, worked = time.perf_counter(), time.process_time()
    study = grown.opened(NAME, 2 * trials, hours=hours)
    if mlflow:
        read, space = grown.question(NAME, 2 * trials)
        facts = StudyInfo(study.folder, "nothing", read.metric, read.text, planned=trials, names=space.names)
        tracker.MlflowTracker(lambda text: print(text, file=sys.stderr)).opened(facts)
    first = study.next_job()
    found = {"first": time.perf_counter() - began, "cpu": time.process_time() - worked}
    if first is None or first.trial < trials:
        sys.exit(f"gate: the next trial is {first and first.trial}, but there are {trials} trials")
    asked = []
    for _ in range(5):
        began = time.perf_counter()
        study.next_job()
        asked.append(time.perf_counter() - began)
    time.sleep(3.0 if mlflow else 0)  # for the memory that it holds while it catches up
    return found | {"ask": min(asked), "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def command(*words: str) -> tuple[float, float, Any]:
    """Return the seconds of a command by the clock and in CPU time, and its JSON document."""
    began, worked = time.perf_counter(), children()
    said = subprocess.run(
        [sys.executable, "-m", "sweeper.cli", *words, NAME, "--json"], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, children() - worked, json.loads(said.stdout)


def children() -> float:
    """Return the CPU seconds of finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def trials_part(count: int) -> Iterator[list[object]]:
    folder = grown.grow(NAME, count)
    rebuilt = part("resume", count)
    restore(folder, count)
    again: dict[str, list[dict[str, float]]] = {"resume": [], "hours": []}
    for _ in range(2):
        for name, found in again.items():
            found.append(part(name, count))
            restore(folder, count)
    caught = part("catch_up", count)
    restore(folder, count)
    leaderboard = [command("leaderboard") for _ in range(2)]
    status = [command("status") for _ in range(2)]
    gate(folder, count, leaderboard[0][2], status[0][2])
    yield from [
        row("sweep leaderboard, s", min(each[0] for each in leaderboard), 5, min(each[1] for each in leaderboard)),
        row("sweep status, s", min(each[0] for each in status), 5, min(each[1] for each in status)),
        row("resume until the first job, s", *least(again["resume"])),
        row("the same, with a budget of hours, s", *least(again["hours"])),
        row("the same, rebuilding the index of trials, s", rebuilt["first"], None, rebuilt["cpu"]),
        row("the same, MLflow catching up on every trial, s", caught["first"], 5, caught["cpu"]),
        row("proposing the next trial, ms", 1e3 * min(one["ask"] for one in again["resume"]), 500),
        row("coordinator's peak memory, MLflow catching up, MB", caught["peak"], 500),
    ]


def least(found: list[dict[str, float]]) -> tuple[float, float, float]:
    """Return the least seconds until the first job, their target, and the least CPU seconds."""
    return min(one["first"] for one in found), 5, min(one["cpu"] for one in found)


def restore(folder: StudyFolder, count: int) -> None:
    """Remove the trials that a measurement has started."""
    for path in folder.trials.iterdir():
        if int(path.name) >= count:
            shutil.rmtree(path)


def gate(folder: StudyFolder, count: int, leaderboard: dict[str, Any], status: dict[str, Any]) -> None:
    values = [json.loads(path.read_text())["value"] for path in folder.trials.glob("*/result.json")]
    best = status["best"]["value"]
    if (len(values), len(leaderboard["trials"]), status["trials"]["COMPLETE"]) != (count,) * 3:
        sys.exit(f"gate: {count} trials, but {len(leaderboard['trials'])} on the leaderboard")
    shown = leaderboard["trials"][0]["value"]
    if (best, shown) != (max(values), round(max(values), 6)):
        sys.exit(f"gate: the best value is {max(values)}, but {best} is shown")


# ------------------------------------------------------------------------------------------- images
def draw(root: Path, count: int) -> None:
    """Write a table of small noise images, a few hundred distinct ones under many names."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    (root / "drawn").mkdir(parents=True)
    sources = [root / "drawn" / f"{number}.jpg" for number in range(DISTINCT)]
    for source in sources:
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(source, quality=80)
    lines = ["path,split,colour,place"]
    for number in range(count):
        path = f"{number // 1000:03d}/{number:06d}.jpg"
        (root / path).parent.mkdir(exist_ok=True)
        os.link(sources[number % DISTINCT], root / path)
        lines.append(f"{path},{'train' if number % 10 else 'val'},c{number // 10 % 20},p{number % 3}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def config(root: Path) -> Any:
    from trainers.data_config import DataConfig

    return DataConfig(layout="table", root=str(root), size=SIDE)


def decode(root: Path) -> dict[str, float]:
    """Return the seconds of checking and decoding all images, and of decoding them without a cache."""
    import numpy as np
    from PIL import Image

    from trainers.data import check
    from trainers.data.cache import open_cache
    from trainers.data.images import map_rows, resized
    from trainers.loading.image_store import gather

    found = {"check": rounds.wall(lambda: check.ensure(config(root), paths.cache()))}
    found |= {"check again": rounds.wall(lambda: check.ensure(config(root), paths.cache()))}
    table = check.ensure(config(root), paths.cache()).table
    contents = [(root / "drawn" / f"{number}.jpg").read_bytes() for number in range(DISTINCT)]

    def bare(_: int, row: Row) -> None:
        image = resized((root / row.path).read_bytes(), (SIDE, SIDE), None)[0]
        image.resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC)

    found |= {"cache": rounds.wall(lambda: open_cache(table, config(root), paths.cache()))}
    found |= {"bare": rounds.wall(lambda: map_rows(table.rows, bare))}
    cache = open_cache(table, config(root), paths.cache())
    for number in random.Random(0).sample(range(len(table.rows)), 50):
        image = resized(contents[number % DISTINCT], (SIDE, SIDE), None)[0]
        if gather(cache.images, np.array([number])).numpy().tobytes() != image.tobytes():
            sys.exit(f"gate: image {number} of the cache is not what its file decodes to")
    return found


def train(root: Path) -> dict[str, float]:
    """Return the seconds of opening decoded images, and a worker's own MB before and after 200 random batches."""
    import numpy as np
    import torch

    from trainers.config import Augment
    from trainers.loading.batches import Data, shuffled
    from trainers.loading.cpu_transforms import InputFormat
    from trainers.loading.loader import AugmentationSource, Loader

    worked = time.process_time()
    found = {"open": rounds.wall(lambda: Data.open(config(root), paths.cache()))}
    found |= {"cpu": time.process_time() - worked}
    data = Data.open(config(root), paths.cache())
    rows = data.table.indices("train")
    data.labels(rows[:1])
    before = anonymous()
    chunks = shuffled(rows, 64, np.random.default_rng(0))[:200]
    eye = InputFormat(torch.device("cpu"), torch.zeros(3), torch.ones(3), torch.channels_last)
    drawing = AugmentationSource(
        Augment(random_shift=0.125), np.random.default_rng(0), np.zeros(len(data.table.rows), dtype=bool)
    )
    batches = Loader(data, 2 * SIDE, eye, hosted=True).training(chunks, drawing)
    total = sum(float(batch.images.sum()) for batch in batches)
    return found | {"gathered": anonymous() - before, "held": before, "sum": float(total)}


def anonymous() -> float:
    """Return the anonymous memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def images_part(count: int) -> Iterator[list[object]]:
    root = paths.home() / "images"
    draw(root, count)
    decoded = part("decode", root)
    opened = [part("train", root) for _ in range(2)]
    yield from [
        row("checking every image, images/s", count / decoded["check"], None),
        row("checking them again, s", decoded["check again"], 10),
        row("decoding into the cache, images/s", count / decoded["cache"], None),
        row("the same over bare decoding", decoded["cache"] / decoded["bare"], 1.5),
        row("opening decoded images, s", min(one["open"] for one in opened), 2, min(one["cpu"] for one in opened)),
        row("growth of a worker's own memory over 200 batches, MB", max(one["gathered"] for one in opened), 50),
    ]


# -------------------------------------------------------------------------------------------- all
PARTS = {
    "resume": lambda of: resume(int(of)),
    "hours": lambda of: resume(int(of), hours=1e6),
    "catch_up": lambda of: resume(int(of), mlflow=True),
    "decode": lambda of: decode(Path(of)),
    "train": lambda of: train(Path(of)),
}


def part(name: str, of: object) -> dict[str, float]:
    """Run one of PARTS in a separate process, and return its figures."""
    call = [sys.executable, __file__, "--part", name, str(of)]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, figure: float, metric: float | None, cpu: float | str = "") -> list[object]:
    if metric is None:
        return [name, figure, cpu, "", ""]
    return [name, figure, cpu, f"<= {metric:g}", rounds.verdict(figure, metric)]


def main() -> None:
    ask = rounds.arguments(__doc__)
    ask.add_argument("--part", nargs=2, help="internal, for the separate processes")
    given = ask.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part[0]](given.part[1])), flush=True)
        os._exit(0)  # without waiting for MLflow to catch up
    trials, images = (2_000, 20_000) if given.quick else (10_000, 200_000)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"SWEEP_HOME": home, "SWEEP_TRAINER": "fake"}
        rows = [*trials_part(trials), *images_part(images)]
    print(rounds.hardware())
    print(f"{trials:,} trials of {grown.EPOCHS} epochs, {images:,} images of {SIDE} x {SIDE} pixels; the best of two")
    print(rounds.table(["figure", "found", "CPU s", "target", ""], rows))


if __name__ == "__main__":
    main()
