"""Submissions: a verified zip and tables by name, whose bytes depend only on the predictions."""

import csv
import io
import itertools
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import DataError, EnvironmentFault, Fault
from sweeper.results.winner import Winner
from sweeper.store import records
from sweeper.store.paths import RunFolder
from sweeper.text import counted
from trainers.data import splitting
from trainers.data.table import class_counts, classes_of, label_matrix, spans
from trainers.data_config import DataConfig
from trainers.epoch import Epoch
from trainers.evaluation.answers import logit_offset, probabilities
from trainers.support.checksummed import load_array
from trainers.support.files import atomic_write, sha256, write_text

if TYPE_CHECKING:
    from trainers.data.layouts import Category, Table

MEMBER = "prediction.txt"
DIGITS = 6  # of a probability
Predictions = NDArray[np.int64]


@dataclass(frozen=True)
class Submission:
    """The files that were written: the zip, its sha256, its number of images, and the meaning of its numbers.

    If `refused` gives a reason why lines of numbers cannot hold the answers, there is no zip, only the table.
    """

    path: Path | None
    sha256: str | None
    images: int
    classes: tuple["Category", ...]  # in the order of the numbers
    table: Path | None  # predictions.csv, for layouts whose classes have names on disk
    formulas: bool = False  # a spreadsheet would read a name in it as a formula
    refused: str = ""

    def renumbered(self) -> "Iterator[tuple[Category, int]]":
        """Yield each category whose class names are different numbers, with the first index that differs."""
        for category in self.classes if self.path else ():
            if all(name.isdecimal() for name in category.classes):
                differing = (k for k, name in enumerate(category.classes) if name != str(k))
                yield from ((category, k) for k in itertools.islice(differing, 1))


def choose(logits: NDArray[Any], categories: Sequence["Category"]) -> Predictions:
    """Choose the likeliest class (the first of equals) per category, or 0/1 flags if it has several answers.

    logits [N, sum of classes], categories one after the other -> [N, D] int64, laid out like the labels of rows,
    0-based inside each category. Raises EnvironmentFault for another width, or if a score is not finite.
    """
    width = sum(len(category.classes) for category in categories)
    if logits.ndim != 2 or logits.shape[1] != width:
        raise EnvironmentFault(f"the scores have shape {logits.shape}; expected [images, {width}]")
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise EnvironmentFault(
            f"not finite: the scores of {counted(bad, 'test image')}", help="retrain the model in fp32"
        )
    parts = [(logits[:, span.classes], span.category.multi) for span in spans(categories)]
    chosen = [part > 0 if several else part.argmax(axis=1)[:, None] for part, several in parts]
    return np.concatenate(chosen, axis=1).astype(np.int64)


def text(predictions: Predictions) -> str:
    """Return one line per image: integers separated by single spaces, LF, no header."""
    return "".join(" ".join(map(str, row)) + "\n" for row in predictions.tolist())


def export(folder: RunFolder, table: "Table", data: DataConfig) -> Submission:
    """Turn the test scores in `folder` into prediction.txt, a verified submission.zip, and predictions.csv.

    The lines follow the order of the table's test rows. The same scores give the same bytes on every machine.
    predictions.csv is written if classes have names on disk. If a category has several answers, it is the only file;
    its cells use the separator of `data`.
    """
    rows, several = table.split("test"), [category.name for category in table.categories if category.multi]
    predictions = choose(load_array(folder.test_logits), table.categories)
    named = data.layout == "folder" or data.is_tabular or bool(several)
    if named:
        write_text(folder.predictions, _csv(predictions, table, data.multi_separator))
    by_name = folder.predictions if named else None
    formulas = named and any(map(_formula, _names(table)))
    if several:
        which = f"categories with several answers ({', '.join(several)})"
        why = f"{MEMBER} holds one class number per category, but the data set has {which}"
        return Submission(None, None, len(rows), table.categories, by_name, formulas, why)
    body = text(predictions)
    write_text(folder.prediction, body)
    _pack(folder.submission, body)
    verify(folder.submission, [len(c.classes) for c in table.categories], len(rows))
    digest = sha256(folder.submission)
    return Submission(folder.submission, digest, len(rows), table.categories, by_name, formulas)


def _pack(path: Path, body: str) -> None:
    """Write the zip without date or owner. It is stored, not deflated, as compressors differ between machines."""
    entry = zipfile.ZipInfo(MEMBER, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # unix
    entry.external_attr = 0o100644 << 16
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, body.encode("ascii"))


def _csv(predictions: Predictions, table: "Table", separator: str) -> str:
    """Return the answers as CSV with unchanged names, even those that a spreadsheet reads as formulas.

    Programs join on these names; `sweep best` warns about formulas instead. A cell holds all answers of a category
    with several, and is empty if the image has none of the classes.
    """
    places, lines = spans(table.categories), list[list[str]]()
    for row, labels in zip(table.split("test"), predictions.tolist(), strict=True):
        found = [(s.category.classes, classes_of(labels[s.labels], s.category)) for s in places]
        lines.append([row.path, *(separator.join(names[k] for k in chosen) for names, chosen in found)])
    return _table(["path", *(category.name for category in table.categories)], lines)


def _names(table: "Table") -> Iterator[str]:
    """Yield every name that can appear in predictions.csv."""
    yield from (row.path for row in table.split("test"))
    for category in table.categories:
        yield from (category.name, *category.classes)


def _formula(name: str) -> bool:
    """True if a spreadsheet would evaluate `name`; plain signed numbers are harmless."""
    return name.startswith(("=", "+", "-", "@")) and not name[1:].replace(".", "", 1).isdecimal()


def verify(path: Path, widths: Sequence[int], images: int) -> None:
    """Read a submission back and raise DataError with everything that a board would reject.

    widths: number of classes of each category; images: number of test images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            body = archive.read(MEMBER) if names == [MEMBER] else b""
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError([Fault(str(path), f"not a readable zip: {error}")]) from error
    if names != [MEMBER]:
        raise DataError([Fault(str(path), f"holds {names} instead of exactly one file {MEMBER}")])
    if faults := list(_faults(body, widths, images)):
        raise DataError([Fault(f"{path}:{where}", what) for where, what in faults])


def _faults(body: bytes, widths: Sequence[int], images: int) -> list[tuple[str, str]]:
    if b"\r" in body or not body.isascii() or (body and not body.endswith(b"\n")):
        return [(MEMBER, "lines must be ASCII and end with LF")]
    lines = body.decode("ascii").split("\n")[:-1]
    found = [(f"{MEMBER}:{n}", what) for n, line in enumerate(lines, 1) if (what := _fault(line, widths))]
    if len(lines) != images:
        found.insert(0, (MEMBER, f"{len(lines)} lines for {images} test images"))
    return found


def _fault(line: str, widths: Sequence[int]) -> str:
    cells = line.split(" ")
    if len(cells) != len(widths):
        return f"{len(cells)} values for {len(widths)} categories"
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True), 1):
        if not cell.isdigit() or int(cell) >= width or str(int(cell)) != cell:
            return f"column {column}: {cell!r} is not a class from 0 to {width - 1}"
    return ""


# ----------------------------------------------------------------------------------------- folds
def export_folds(won: Winner, folder: RunFolder, table: "Table") -> None:
    """Write oof.csv, test_fold_1.csv and so on, if the predictions of the winner's folds exist.

    All hold the probabilities of one view per image, with the correction and temperatures fitted to all folds
    together, so that a stacking model trained on oof.csv can be applied to the others.
    """
    folds, epoch = won.job.recipe.folds, won.epoch
    places = [fold.val_logits for fold in won.study.trial(won.result.number).folds]
    if not folds or epoch is None or not epoch.folds or not all(place.exists() for place in places):
        return
    numbers = splitting.folds(table.rows, table.categories, count=folds, seed=won.job.recipe.data.split_seed)
    rows = [(number, index) for index, number in enumerate(numbers) if number is not None]
    order = [index for _, index in sorted(rows)]  # fold after fold, as the predictions are
    shares = _probabilities(won, epoch, table, np.concatenate([load_array(place) for place in places]))
    of_row = dict(zip(order, shares.tolist(), strict=True))
    cells = ([table.rows[at].path, number, *_written(of_row[at])] for number, at in rows)
    write_text(folder.out_of_fold, _table(["path", "fold", *_columns(table)], cells))
    for number in range(1, folds + 1):
        _export_test(won, epoch, folder, table, number)


def _export_test(won: Winner, epoch: Epoch, folder: RunFolder, table: "Table", number: int) -> None:
    """Write the predictions of the test images by the model of one fold, if they exist."""
    place = folder.test_logits_of_fold(number)
    if not place.exists():
        return
    shares = _probabilities(won, epoch, table, load_array(place))
    paths = [row.path for row in table.split("test")]
    cells = ([path, number, *_written(each)] for path, each in zip(paths, shares.tolist(), strict=True))
    write_text(folder.test_of_fold(number), _table(["path", "fold", *_columns(table)], cells))


def _probabilities(won: Winner, epoch: Epoch, table: "Table", logits: NDArray[Any]) -> NDArray[Any]:
    """Return the corrected, calibrated probabilities of raw logits [N, sum C]."""
    tau = won.job.recipe.train.posthoc_logit_adjustment.strength(epoch, won.result.metric)
    pool = splitting.pooled(table).split("val")
    counts = class_counts(label_matrix(pool, table.categories), table.categories)
    offset = logit_offset(table.categories, [each.tolist() for each in counts], tau)
    return probabilities(logits - offset, table.categories, epoch.temperature)


def _columns(table: "Table") -> list[str]:
    """Return one column name per class, such as `colour=red`."""
    return [f"{category.name}={name}" for category in table.categories for name in category.classes]


def _written(shares: Sequence[float]) -> list[str]:
    return [f"{share:.{DIGITS}f}" for share in shares]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def fold_lines(folder: RunFolder) -> Iterator[str]:
    """Yield the fold files in the folder of a final model, and why some are missing; nothing without folds."""
    job = records.read_config(folder)
    if job is None or not job.recipe.folds or job.ensemble:  # its members have theirs
        return
    result = records.read_result(folder.study.trial(job.trial))
    if not folder.out_of_fold.exists():
        is_whole = result is not None and result.state == "COMPLETE"
        removed = "keep_checkpoints or sweep clean has removed the predictions of the folds"
        yield f"folds:      no oof.csv: {removed if is_whole else f'trial {job.trial} did not train all folds'}"
        return
    tests = [folder.test_of_fold(number) for number in takewhile(lambda n: folder.test_of_fold(n).exists(), count(1))]
    more = f", {tests[0].name} to {tests[-1].name}" if tests else ""
    yield f"folds:      {folder.out_of_fold.name}{more}, probabilities by image and class"
    if not tests and folder.test_logits.exists():
        yield "            no test predictions: keep_checkpoints or sweep clean has removed the models of the folds"
