"""The command line as tests call it: in a process and a folder of its own, with the fake trainer."""

import os
import subprocess
import sys
from pathlib import Path

from trainers.data.demo import draw

SPACE = """\
study: question
data: {layout: challenge, root: garments, crop: box}
budget: {trials: 3}
search: {sampler: random, pruner: none}
train:
  backbone: test_resnet
  pretrained: false
  image_size: 32
  optimizer: {name: adamw, lr: {loguniform: [1e-4, 1e-1]}}
  epochs: 4
"""


def environment(**changes: str) -> dict[str, str]:
    """Ours without what a test session sets, plus the fake trainer and `changes`; an empty value takes one away."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SWEEP_", "MLFLOW_"))}
    wanted = {"SWEEP_TRAINER": "fake", "COLUMNS": "80", **changes}
    return {name: value for name, value in (plain | wanted).items() if value}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sweeper", *words]


def sweep(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """`sweep WORDS` in `folder`, to its end."""
    return subprocess.run(
        command(*words), cwd=folder, env=environment(**changes), capture_output=True, text=True, timeout=120
    )


def lay_out(folder: Path, space: str = SPACE) -> Path:
    """A drawn data set and a search space in `folder`."""
    draw(folder / "garments", images=(30, 12, 6), seed=0)
    (folder / "space.yaml").write_text(space)
    return folder


def numbers(history: Path) -> list[int]:
    import json

    return [json.loads(line)["number"] for line in history.read_text().splitlines()]
