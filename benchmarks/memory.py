"""Measure the memory of trials side by side: three workers with one shared map, and three with a copy each.

    python benchmarks/memory.py [--quick]

Each process gathers every image once, in random order, and takes a training step of a tiny network now and then.
Memory is measured as PSS, in which a page that several processes share counts once in total. This needs Linux.
The gate: the sum of all gathered bytes is the same in every process of both lanes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rounds

HERE = Path(__file__).parent
WORKER = """
import sys
import numpy as np, torch
from trainers.config import TrainConfig
from trainers.loading.image_store import gather
from trainers.models import network
images = np.load(sys.argv[1], mmap_mode="r")
if sys.argv[2] == "copies":
    images = np.array(images)
torch.set_num_threads(1)
net = network.build(TrainConfig(backbone="resnet10t", pretrained=False, image_size=64), [5])
optimizer = torch.optim.AdamW(net.parameters())
total = 0
order = np.random.default_rng(0).permutation(len(images))
for number, rows in enumerate(order[: len(images) // 50 * 50].reshape(-1, 50)):
    batch = gather(images, rows)
    total += int(batch.sum())
    if number % 20 == 0:
        net(batch[:16, :64, :64].permute(0, 3, 1, 2).float() / 255).square().mean().backward()
        optimizer.step()
print(total, flush=True)
sys.stdin.read()
"""


def measured(images: Path, how: str, workers: int) -> tuple[float, list[int]]:
    """Return the PSS in GB of all workers together after each has seen every image, and their sums of bytes."""
    words = [sys.executable, "-c", WORKER, str(images), how]
    there = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE.parent)
        for _ in range(workers)
    ]
    totals = [int(one.stdout.readline()) for one in there if one.stdout]
    memory = sum(pss(one.pid) for one in there)
    for one in there:
        one.communicate()
    return memory, totals


def pss(process: int) -> float:
    """Return the proportional set size of a process in GB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e9


def main() -> None:
    given = rounds.arguments(__doc__ or "").parse_args()
    count, workers = (1500 if given.quick else 7000), 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 256, 256, 3))
        rng = np.random.default_rng(0)
        for start in range(0, count, 500):
            images[start : start + 500] = rng.integers(0, 256, images[start : start + 500].shape, dtype=np.uint8)
        size = images.nbytes / 1e9
        del images
        shared, seen = measured(path, "shared", workers)
        copies, also = measured(path, "copies", workers)
    metric = 2.6 - 1.4 + size  # the target is 2.6 GB for a cache of 1.4 GB
    print(rounds.hardware())
    print(f"{count} decoded images of 256 x 256, {size:.2f} GB; {workers} workers, resnet10t\n")
    rows = [
        [f"{workers} workers on the shared map, GB", shared, f"<= {metric:.2f}", rounds.verdict(shared, metric)],
        [f"{workers} workers with copies, GB", copies, "", ""],
        ["shared / copies", shared / copies, "", ""],
        ["one worker besides the images, GB", (shared - size) / workers, "", ""],
    ]
    print(rounds.table(["", "figure", "target", ""], rows))
    held = len({*seen, *also}) == 1
    print(f"\ngate: {'held' if held else 'BROKEN'}: every worker saw the same bytes")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
