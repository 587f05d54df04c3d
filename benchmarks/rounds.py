"""What every benchmark shares: rounds in which lanes take turns, ratios inside a round, the table at the end."""

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

OFF = 0.25  # a round whose floor is further from the median floor was disturbed

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
    """What each lane returned in each round, [rounds] by name; each round begins with another lane."""
    names = list(lanes)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(lanes[name]())
    return found


def steady(floor: Sequence[float]) -> list[int]:
    """The rounds whose floor is within 25 % of the median floor: the others were disturbed."""
    middle = statistics.median(floor)
    return [number for number, one in enumerate(floor) if abs(one / middle - 1) <= OFF]


def ratio(above: Sequence[float], below: Sequence[float], floor: Sequence[float] | None = None) -> Ratio:
    """Median, least and largest of above/below of the same round; rounds with a disturbed `floor` are dropped."""
    kept = steady(floor) if floor is not None else range(len(above))
    found = [above[number] / below[number] for number in kept]
    return Ratio(statistics.median(found), min(found), max(found), len(found), len(above) - len(found))


def wall(work: Callable[[], object]) -> float:
    """Seconds by the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads, and of the children it has waited for."""
    began = _cpu()
    work()
    return _cpu() - began


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def recorded(out: Path) -> list[dict[str, Any]]:
    """What a file of one JSON object per line has so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def verdict(figure: float, metric: float, *, at_least: bool = False) -> str:
    """met or missed; a figure is to be at most its metric, or at least."""
    return "met" if (figure >= metric if at_least else figure <= metric) else "missed"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats with three digits."""
    lines = [list(headers), ["---"] * len(headers), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def devices(device: str) -> str:
    """What `--devices` of sweep takes for it: one GPU, or the CPU."""
    return "0" if device == "cuda" else device


def hardware(device: str = "cpu") -> str:
    """One line: date, commit, processor, cores, load, versions, and the GPU where that is the device."""
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
    """--quick and --device, which every benchmark takes."""
    ask = argparse.ArgumentParser(description=description)
    ask.add_argument("--quick", action="store_true", help="fewer rounds of less work: at most 90 s on two cores")
    ask.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return ask


def on_photographs(description: str, out: str) -> argparse.ArgumentParser:
    """The same, and where real photographs, weights for them, decoded images and results lie."""
    ask = arguments(description)
    ask.add_argument("--root", type=Path, default=Path("../shared/data/clothing"))
    ask.add_argument("--weights", type=Path, default=Path("../shared/weights/mobilenetv2_100_same.safetensors"))
    ask.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    ask.add_argument("--out", type=Path, default=Path(out))
    return ask


def photographs(ask: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked; ends the process where photographs or weights are not there."""
    given = ask.parse_args()
    if absent := [path for path in (given.root / "labels.csv", given.weights) if not path.exists()]:
        sys.exit(f"{absent[0]} is not there: name the photographs with --root and the weights with --weights")
    given.out.mkdir(parents=True, exist_ok=True)
    return given
