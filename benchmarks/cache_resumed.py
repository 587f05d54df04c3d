"""Kill and resume the build of a large cache, as raw pixels and as JPEG: images, seconds and memory.

    python benchmarks/cache_resumed.py [--images 200000] [--distinct 2000] [--size 64] [--kills 2]

The images are hard links to a few drawn ones. Each build is a process that receives SIGKILL after an equal share of
the images, --kills times, and is started again. The exit code is 1 if an image differs from one decoded
alone, if a build starts from scratch, or if memory exceeds that of the first process by more than a quarter.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import rounds
from pictures import draw

from trainers.data import layouts
from trainers.data.cache import open_cache
from trainers.data.table import Table
from trainers.data_config import DataConfig
from trainers.loading.image_store import gather

BUILD = """
import os, resource, signal, sys
from pathlib import Path
from trainers.data_config import DataConfig
from trainers.data import decoding, layouts
from trainers.data.cache import open_cache
config, until = DataConfig.model_validate_json(sys.argv[1]), int(sys.argv[3])
decoding.SHARD = int(sys.argv[4])
begun = []
def told():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    anonymous = [line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")]
    print(begun[0] if begun else -1, int(anonymous[0]) / 1024, usage.ru_utime + usage.ru_stime, flush=True)
def progress(done, total):
    begun.append(done)
    if done >= until:
        told()
        os.kill(os.getpid(), signal.SIGKILL)
open_cache(layouts.read(config), config, Path(sys.argv[2]), progress=progress)
told()
"""


def linked(root: Path, images: int, distinct: int, size: int) -> DataConfig:
    """Write a table of `images` images, all but `distinct` of them hard links."""
    config = draw(root, train=distinct, val=0, size=size)
    lines = (root / "labels.csv").read_text().splitlines()
    rows = [lines[0]]
    for number in range(images):
        path, rest = lines[1 + number % distinct].split(",", 1)
        name = f"images/link{number:06d}.jpg"
        (root / name).hardlink_to(root / path)
        rows.append(f"{name},{rest}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return config


@dataclass(frozen=True)
class Build:
    """One process: its end, the images present at its start, its seconds, CPU seconds, and memory in MB."""

    cache: str
    number: int
    end: str
    first: int
    seconds: float
    cpu: float
    memory: float


def builds(config: DataConfig, folder: Path, images: int, kills: int, shard: int) -> list[Build]:
    """Return each process that took part in building a cache of `images` images."""
    found = []
    for number in range(kills + 1):
        until = images * (number + 1) // (kills + 1) if number < kills else 2 * images
        command = [sys.executable, "-c", BUILD, config.model_dump_json(), str(folder), str(until), str(shard)]
        began = time.monotonic()
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        first, memory, cpu = map(float, ended.stdout.split())
        end = "killed" if ended.returncode == -9 else "finished" if not ended.returncode else "failed"
        found.append(Build(str(config.cache), number, end, int(first), time.monotonic() - began, cpu, memory))
    return found


def right(config: DataConfig, table: Table, folder: Path, distinct: int) -> bool:
    """Return True if images from all over the cache equal those of a small cache of the drawn images alone."""
    small = Table(table.root, table.categories, table.rows[:distinct])
    whole, alone = open_cache(table, config, folder), open_cache(small, config, folder / "alone")
    rows = np.random.default_rng(0).integers(0, len(table.rows), 500)
    pairs = ((whole.images, alone.images), (whole.half, alone.half))
    return all(bool((gather(a, rows) == gather(b, rows % distinct)).all()) for a, b in pairs)


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--images", type=int, default=200_000)
    ask.add_argument("--distinct", type=int, default=2000)
    ask.add_argument("--size", type=int, default=64)
    ask.add_argument("--kills", type=int, default=2)
    ask.add_argument("--shard", type=int, default=2**28, help="bytes of pixels between two records of progress")
    given = ask.parse_args()
    lines: list[Build] = []
    held = True
    with tempfile.TemporaryDirectory() as name:
        root, folder = Path(name) / "set", Path(name) / "cache"
        plain = linked(root, given.images, given.distinct, given.size)
        table = layouts.read(plain)
        for kind in ("raw", "jpeg"):
            config = plain.model_copy(update={"cache": kind})
            found = builds(config, folder, given.images, given.kills, given.shard)
            flat = all(one.memory <= 1.25 * found[0].memory for one in found)
            resumed = all(a.first < b.first for a, b in pairwise(found))
            held = held and flat and resumed and right(config, table, folder, given.distinct)
            lines += found
    print(rounds.hardware(), "\n")
    headers = ["cache", "process", "outcome", "continues at image", "seconds", "CPU seconds", "own memory, MB"]
    print(rounds.table(headers, map(astuple, lines)), "\n")
    print("all promises held" if held else "a promise did NOT hold")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
