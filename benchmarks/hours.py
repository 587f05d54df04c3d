"""Measure how well a study keeps to its hours, including the retraining: python -m benchmarks.hours .05 .1 .2.

Train a small network on drawn garments, with one study per budget, each in a new folder, and print a table for
RESULTS.md.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SPACE = """\
data: {layout: challenge, root: photos, crop: box}
budget: {hours: HOURS}
preset: fast
train:
  backbone: test_resnet
  pretrained: false
  optimizer: {name: adamw, lr: {loguniform: [3e-4, 3e-2]}, weight_decay: 0.05}
"""


def sweep(folder: Path, *words: str) -> str:
    """Run `sweep WORDS` in `folder`, and return its output."""
    command = [sys.executable, "-m", "sweeper", *words]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def row(hours: str) -> str:
    """Run a study, and return a line of the table: the plan, and where the time went."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep(folder, "data", "demo", "photos")
        (folder / "budget.yaml").write_text(SPACE.replace("HOURS", hours))
        load = os.getloadavg()[0]
        sweep(folder, "run", "budget.yaml", "--devices", "cpu")
        told = json.loads(sweep(folder, "status", "--json"))
        plan = json.loads((folder / "mlruns/studies/budget/study.json").read_text())["plan"]
    spent, counts = told["spent_seconds"], told["trials"]
    whole = 3600 * float(hours)
    trials = f"{plan['trials']} of {plan['epochs']} epochs at {plan['image_size']} px, then {plan['models']} models"
    parts = (f"{spent[part]:.0f}" for part in ("trials", "retraining", "between_trials", "unused"))
    used = f"{(whole - spent['unused']) / whole:.0%}"
    return f"| {hours} | {trials} | {sum(counts.values())} | {' | '.join(parts)} | {used} | {load:.0f} |"


def main() -> None:
    """Measure the budgets that the command line names."""
    print("| hours | planned | started | trials, s | retraining, s | between, s | unused, s | used | load before |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|--:|")
    for hours in sys.argv[1:]:
        print(row(hours), flush=True)


if __name__ == "__main__":
    main()
