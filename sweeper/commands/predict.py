"""`sweep predict`: the predictions of a finished model for new images, as a table, CSV or JSON."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sweeper.errors import UserError
from sweeper.model import find, image_files, process
from sweeper.model.find import FoundModel
from sweeper.terminal.output import counting, print_message
from sweeper.text import counted
from trainers.support.files import output_file


@dataclass(frozen=True)
class Options:
    """The options of `sweep predict`."""

    top: int | None = None
    boxes: Path | None = None
    csv: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    details: bool = False  # every class of every image, for JSON


@dataclass(frozen=True)
class Predicted:
    """The model, its prediction for each image, and the images that could not be read."""

    model: FoundModel
    about: dict[str, Any]
    images: list[dict[str, Any]]  # empty if they are only written to a CSV
    unreadable: list[dict[str, str]]
    complete: bool  # no file of a folder was left out

    @property
    def exit_code(self) -> int:
        """1 if an image was left out, else 0."""
        return int(bool(self.unreadable) or not self.complete)


def run(word: str, images: Sequence[str], options: Options) -> Predicted:
    """Predict these images with the model that `word` names; a requested CSV is written row by row.

    The model's name, progress, and unreadable images are reported on stderr.
    """
    if options.csv and options.csv.is_dir():
        raise UserError("--csv needs a file, but this is a folder", where=str(options.csv), help="add a file name")
    model, files = find.find(word), image_files.listed(images)
    if options.csv:
        read = [model.path, *map(Path, images), *files.paths, *([options.boxes] if options.boxes else [])]
        image_files.refuse_overwriting("--csv", options.csv, read)
    boxes = image_files.boxes(options.boxes) if options.boxes else {}
    asked = list(image_files.with_boxes(files.paths, boxes))
    for line in (*files.left_out, f"model: {model.words}"):
        print_message(line)
    answers = _answers(model, asked, options)
    about = next(answers)["model"]
    if about["boxes"] and (whole := sum(box is None for _, box in asked)):
        used = f"without a box, and so used whole: {counted(whole, 'image')}"
        print_message(f"this model was trained on the content of boxes; {used} (see --boxes)")
    predicted = Predicted(model, about, [], [], complete=not files.left_out)
    _collect(predicted, answers, len(asked), options)
    if predicted.unreadable:
        print_message(f"left out: {counted(len(predicted.unreadable), 'image')} of {len(asked)}")
    return predicted


def _collect(predicted: Predicted, answers: Iterator[dict[str, Any]], total: int, options: Options) -> None:
    """Collect the prediction for each image."""
    kept = options.details or not options.csv
    with _table(options, predicted.about) as table, counting("predicting") as count:
        for number, found in enumerate(answers, 1):
            count(number, total)
            if "unreadable" in found:
                print_message(f"{found['path']}: {found['unreadable']}")
                predicted.unreadable.append({"path": found["path"], "why": found["unreadable"]})
                continue
            if table:
                table.write(found)
            if kept:
                predicted.images.append(found)


def _answers(model: FoundModel, asked: Sequence[Any], options: Options) -> Iterator[dict[str, Any]]:
    return process.predictions(
        model,
        asked,
        device=options.device,
        batch_size=options.batch_size,
        top=options.top,
        answers_alone=not options.top and not options.details,
        boxes=options.boxes is not None,
    )


# --------------------------------------------------------------------------------------------- output
def document(predicted: Predicted) -> dict[str, Any]:
    """Return everything for --json."""
    model = predicted.model
    named = {"path": str(model.path), "study": model.study, "trial": model.trial, "kind": model.kind}
    return {
        "schema_version": 1,
        "model": named | predicted.about,
        "images": predicted.images,
        "unreadable": predicted.unreadable,
    }


def cells(predicted: Predicted, top: int | None) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of the table for people, one row per image."""
    headers = ["image", *(category["name"] for category in predicted.about["categories"])]
    return headers, [[found["path"], *(_cell(one, top) for one in found["categories"])] for found in predicted.images]


def _cell(category: dict[str, Any], top: int | None) -> str:
    """Return a text such as `shirt .93` per answer, or, with `top`, per likeliest class even if it is no answer."""
    shown = [f"{name} {_share(value)}" for name, value in _shown(category, top)]
    return ", ".join(shown) or "-"


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _shown(category: dict[str, Any], top: int | None) -> list[tuple[str, float]]:
    """Return the answers with their probabilities, or the `top` likeliest classes."""
    classes = [(one["class"], one["probability"]) for one in category["classes"]]
    return classes[:top] if top else [pair for pair in classes if pair[0] in category["answers"]]


class _Table:
    """Predictions as CSV: one row per image with a class and a probability per category, or, with --top, one row per
    likely class.
    """

    def __init__(self, file: TextIO, about: dict[str, Any], top: int | None) -> None:
        self.writer, self.top = csv.writer(file, lineterminator="\n"), top
        names = [category["name"] for category in about["categories"]]
        wide = [column for name in names for column in (name, f"{name} probability")]
        self.writer.writerow(["path", "category", "class", "probability"] if top else ["path", *wide])

    def write(self, found: dict[str, Any]) -> None:
        shown = {one["category"]: _shown(one, self.top) for one in found["categories"]}
        if self.top:
            rows = [(name, *pair) for name, pairs in shown.items() for pair in pairs]
            self.writer.writerows([found["path"], *row] for row in rows)
            return
        pairs = (zip(*one, strict=True) if one else ((), ()) for one in shown.values())
        wide = ["|".join(map(str, column)) for pair in pairs for column in pair]
        self.writer.writerow([found["path"], *wide])


@contextmanager
def _table(options: Options, about: dict[str, Any]) -> Iterator[_Table | None]:
    """Open the CSV for an atomic write; yields None if none was requested."""
    if options.csv is None:
        yield None
        return
    with output_file(options.csv) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        yield _Table(text, about, options.top)
        text.flush()
        text.detach()
