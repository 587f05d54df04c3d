"""Score final models on their test images with the correction for class frequency at several strengths.

    python benchmarks/correction.py mlruns/studies/*/finals/*

Each argument is the folder of a final model whose test images have labels and whose categories have one answer per
image. One table has a line per model, in each cell its overall and mean class accuracy. `tau` 0 is no correction. The
last column has the strength that was fitted to val.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rounds

from sweeper.engine import prepare
from sweeper.store import records
from sweeper.store.paths import RunFolder
from trainers.data.table import Category, label_matrix
from trainers.evaluation import metrics, model_file
from trainers.evaluation.answers import logit_offset
from trainers.support.checksummed import load_array

TAUS = (0.0, 0.25, 0.5, 0.75, 1.0)


def line(folder: RunFolder) -> Iterator[str]:
    """Yield the name of a final model and its scores at each strength, then at the fitted one."""
    job, members = records.read_config(folder), model_file.read(folder.model).members
    if job is None:
        sys.exit(f"{folder.root} is not the folder of a final model")
    table = prepare.checked(job.recipe.data).table
    labels, logits = label_matrix(table.split("test"), table.categories), load_array(folder.test_logits)
    shifts = [logit_offset(one.notes.asked, one.notes.counts, 1.0) * one.share / one.divisor for one in members]
    fitted = [one.notes.calibration.tau for one in members]
    raw = logits + sum(tau * shift for tau, shift in zip(fitted, shifts, strict=True))
    yield f"{folder.study.name}, {folder.root.name}"
    for tau in TAUS:
        yield scores(raw - tau * np.sum(shifts, axis=0), labels, table.categories)
    yield f"{scores(logits, labels, table.categories)} ({', '.join(f'{tau:.1f}' for tau in fitted)})"


def scores(logits: np.ndarray, labels: np.ndarray, categories: tuple[Category, ...]) -> str:
    found = metrics.scores(logits, labels, categories, loss=0.0)
    return f"{found.value('overall_accuracy'):.4f}, {found.value('mean_class_accuracy'):.4f}"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("finals", type=Path, nargs="+")
    folders = [RunFolder(path.resolve()) for path in ask.parse_args().finals]
    header = ["final model", *(f"tau {tau:g}" for tau in TAUS), "fitted"]
    print(rounds.table(header, [list(line(folder)) for folder in folders]))


if __name__ == "__main__":
    main()
