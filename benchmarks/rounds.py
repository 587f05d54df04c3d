"""The shared parts of all benchmarks: rounds in which lanes take turns, ratios within a round, and tables."""

import argparse
import datetime
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

OFF = 0.25  # a round whose floor is further than this share from the median floor was disturbed

Lane = Callable[[], float]


@dataclass(frozen=True)
class Ratio:
    """One lane over another, round by round."""

    median: float
    least: float
    most: float
    rounds: int
    dropped: int = 0  # rounds that were disturbed

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g} to {self.most:.3g})"


def interleave(lanes: Mapping[str, Lane], rounds: int) -> dict[str, list[float]]:
    """Return the result of each lane in each round, [rounds] by name. Each round starts with another lane."""
    names = list(lanes)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(lanes[name]())
    return found


def steady(floor: Sequence[float]) -> list[int]:
    """Return the rounds whose floor is within 25 % of the median floor. The others were disturbed."""
    middle = statistics.median(floor)
    return [number for number, one in enumerate(floor) if abs(one / middle - 1) <= OFF]


def ratio(above: Sequence[float], below: Sequence[float], floor: Sequence[float] | None = None) -> Ratio:
    """Return the ratio above/below of equal rounds, without rounds whose `floor` was disturbed."""
    kept = steady(floor) if floor is not None else range(len(above))
    found = [above[number] / below[number] for number in kept]
    return Ratio(statistics.median(found), min(found), max(found), len(found), len(above) - len(found))


def wall(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes by the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds that `work` takes in all threads of this process and in children that it waits for."""
    began = _cpu()
    work()
    return _cpu() - began


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Return mean and standard error as text."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def recorded(out: Path) -> list[dict[str, Any]]:
    """Return the records so far in a file with one JSON object per line."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def verdict(figure: float, metric: float, *, at_least: bool = False) -> str:
    """Return "met" if the figure is at most, or `at_least`, its target; otherwise "missed"."""
    return "met" if (figure >= metric if at_least else figure <= metric) else "missed"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, with three significant digits for floats."""
    lines = [list(headers), ["---"] * len(headers), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def devices(device: str) -> str:
    """Return the value of sweep's `--devices` for one GPU or the CPU."""
    return "0" if device == "cuda" else device


def hardware(device: str = "cpu") -> str:
    """Return one line with date, commit, processor, cores, load and versions, and the GPU if that is the device."""
    parts = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"commit {_commit()}",
        f"{len(os.sched_getaffinity(0))} cores of {_processor()}",
        f"load average {os.getloadavg()[0]:.1f}",
        f"Python {platform.python_version()}, torch {metadata.version('torch')}",
    ]
    return "; ".join(parts + ([_gpu()] if device == "cuda" else []))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _commit() -> str:
    here = Path(__file__).parent
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with --quick and --device, which every benchmark takes."""
    ask = argparse.ArgumentParser(description=description)
    ask.add_argument("--quick", action="store_true", help="fewer rounds of less work: at most 90 s on two cores")
    ask.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return ask


def on_photographs(description: str, out: str) -> argparse.ArgumentParser:
    """Return the same parser with the places of photographs, weights, decoded images and results."""
    ask = arguments(description)
    ask.add_argument("--root", type=Path, default=Path("../shared/data/clothing"))
    ask.add_argument("--weights", type=Path, default=Path("../shared/weights/mobilenetv2_100_same.safetensors"))
    ask.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    ask.add_argument("--out", type=Path, default=Path(out))
    return ask


def photographs(ask: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments, and end the process if photographs or weights are missing."""
    given = ask.parse_args()
    if absent := [path for path in (given.root / "labels.csv", given.weights) if not path.exists()]:
        sys.exit(f"{absent[0]} does not exist: name the photographs with --root and the weights with --weights")
    given.out.mkdir(parents=True, exist_ok=True)
    return given
