"""Predictions of a model file in a process of its own: a JSON request on stdin, one line of JSON per image."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainers import extensions
from trainers.evaluation import model_file
from trainers.evaluation.answers import ImagePrediction
from trainers.evaluation.predictor import ImageFile, Predictor, Unreadable
from trainers.support import device
from trainers.support.errors import UserError
from trainers.support.leaving import leave


def answered(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield {"model"}, then one document per image: its categories, or why it is "unreadable"."""
    if asked["threads"]:
        device.use_threads(asked["threads"])
    path, folder = Path(asked["model"]), asked["extensions"]
    if own := model_file.read(path, asked["remake"]).extensions:
        print(f"this model runs its own code: {', '.join(own)} in {folder}", file=sys.stderr)
    model = Predictor(
        path,
        device=asked["device"],
        batch_size=asked["batch_size"],
        extension_folder=Path(folder) if folder else None,
        remake=asked["remake"],
    )
    if asked["boxes"] and not model.boxed:
        what = "this model was trained on whole images and takes no boxes"
        raise UserError(what, where=asked["model"], help="leave --boxes out")
    yield {"model": _about(model)}
    files = [ImageFile(Path(path), box and tuple(box)) for path, box in asked["images"]]
    for found in model.predict_all(files):
        yield _document(found, asked["top"], answers_alone=asked["answers_alone"])


def _about(model: Predictor) -> dict[str, Any]:
    """Return what all networks share, taken from the first; an ensemble also lists its members."""
    notes, several = model.notes, len(model.networks) > 1
    members = [{"backbone": one.notes.recipe.train.backbone, "share": one.share} for one in model.ensemble.members]
    return {
        **({"members": members} if several else {}),
        "backbone": notes.recipe.train.backbone,
        "metric": notes.metric,
        "fitted_on": list(notes.fitted_on),
        "input": list(notes.images.input),
        "fit": notes.images.fit,
        "boxes": model.boxed,
        "views": notes.calibration.views.count,
        "tau": notes.calibration.tau,
        "temperature": model.ensemble.temperature,
        "extensions": list(model.ensemble.extensions),
        "categories": [{"name": c.name, "classes": list(c.classes), "multi": c.multi} for c in notes.categories],
    }


def _document(found: ImagePrediction | Unreadable, top: int | None, *, answers_alone: bool) -> dict[str, Any]:
    if isinstance(found, Unreadable):
        return {"path": str(found.path), "unreadable": found.why}
    said = [one.document(top, answers_alone=answers_alone) for one in found.categories.values()]
    return {"path": str(found.path), "categories": said}


def main() -> None:
    """Answer the request {"model", "remake", "extensions", "device", "threads", "batch_size", "top",
    "answers_alone", "boxes", "images"} on stdin; an error of the whole request is a last line {"error"}.
    """
    with extensions.answering() as answer:
        try:
            for line in answered(json.load(sys.stdin)):
                print(json.dumps(line), file=answer, flush=True)
        except UserError as error:
            print(json.dumps({"error": error.document()}), file=answer, flush=True)


if __name__ == "__main__":
    main()
    leave()
