"""Export of a model file to ONNX Runtime or torch.export, verified, in a process of its own."""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainers import extensions
from trainers.data.decoded_files import input_name
from trainers.data.table import spans
from trainers.evaluation import answers, model_file
from trainers.evaluation.graph import Graph
from trainers.evaluation.model_file import EnsembleNotes
from trainers.evaluation.predictor import Predictor
from trainers.support.device import use_threads
from trainers.support.errors import EnvironmentFault, UserError
from trainers.support.files import write_text
from trainers.support.leaving import leave

BATCHES = (2, 1, 5)  # batch sizes with which a file is tried; it is exported with the first
TOLERANCE = 1e-4  # of a probability
LARGEST = 1_800_000_000  # bytes of weights that one ONNX file can hold
Images = NDArray[np.uint8]
Run = Callable[[Images], Sequence[NDArray[np.float32]]]
"""A program: images in, the probabilities of each category out."""


def exported(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Write the program and labels.json into the folder, and return the largest error of its probabilities.

    Raises EnvironmentFault if that is more than rounding.
    """
    use_threads(asked["threads"])
    path, folder, own = Path(asked["model"]), Path(asked["folder"]), Path(asked["extensions"])
    ensemble = model_file.read(path, asked["remake"])
    notes = ensemble.first
    if ensemble.extensions:
        print(f"this model runs its own code: {', '.join(ensemble.extensions)} in {own}", file=sys.stderr)
    graph = Graph(Predictor(path, extension_folder=own, remake=asked["remake"])).eval()
    samples = list(_samples(notes.format.level(notes.images.input)))
    with torch.no_grad():
        expected = [[part.numpy() for part in graph(torch.from_numpy(images))] for images in samples]
    names = [category.name for category in notes.categories]
    run = _translated(asked["format"], graph, samples[0], names, folder / asked["file"])
    worst = max(_apart(run(images), parts) for images, parts in zip(samples, expected, strict=True))
    if not worst <= TOLERANCE:
        what = f"the exported model disagrees with the original: a probability is off by {worst:.2g}"
        raise EnvironmentFault(
            what,
            where=str(path),
            help=f"nothing was written; please report its backbone, {notes.recipe.train.backbone}",
        )
    text = json.dumps(labels(ensemble, asked["about"]), ensure_ascii=False, indent=1) + "\n"
    write_text(folder / "labels.json", text)
    return {"off": worst, "batches": sorted(BATCHES)}


def _samples(size: tuple[int, int]) -> list[Images]:
    """Return images of light and dark patches with noise: on pure noise, networks hardly differ."""
    rng = np.random.default_rng(0)
    rough = [rng.integers(0, 200, (count, 4, 4, 3)) for count in BATCHES]
    tiles = [
        np.kron(one, np.ones((1, -(-size[0] // 4), -(-size[1] // 4), 1)))[:, : size[0], : size[1]] for one in rough
    ]
    return [(one + rng.integers(0, 56, one.shape)).astype(np.uint8) for one in tiles]


def _apart(found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]) -> float:
    """Return the largest difference of two answers; NaN if either contains one."""
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


# ------------------------------------------------------------------------------------------- formats
def _translated(format: str, graph: Graph, images: Images, names: Sequence[str], path: Path) -> Run:
    """Translate the network and return it as a function. Raises EnvironmentFault if its code cannot be translated."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the translators' warnings about their own internals
            return WAYS[format](graph, images, names, path)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[0]
        help = "sweep predict and --format mlflow run its code as it is"
        raise EnvironmentFault(f"its network cannot be translated: {why}", where=path.name, help=help) from error


def _torch(graph: Graph, images: Images, _: Sequence[str], path: Path) -> Run:
    torch.export.save(_program(graph, images), path)
    loaded = torch.export.load(path).module()
    return lambda images: [part.detach().numpy() for part in loaded(torch.from_numpy(images))]


def _onnx(graph: Graph, images: Images, names: Sequence[str], path: Path) -> Run:
    import onnxruntime

    made = torch.onnx.export(_program(graph, images), verbose=False)
    if made is None:
        raise RuntimeError("torch.onnx produced no program")
    _name(made.model.graph, input_name(names), names)
    large = sum(tensor.nbytes for tensor in graph.state_dict().values()) > LARGEST
    made.save(path, external_data=large)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(list(names), {input_name(names): images})


def _name(graph: Any, images: str, outputs: Sequence[str]) -> None:
    """Give an ONNX graph's input and outputs these names, and rename the inner values that clash with them."""
    inner = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in inner:
        if value.name in {images, *outputs} and not value.is_graph_output():
            value.name = f"{value.name} inside"
    for value, name in zip((*graph.inputs, *graph.outputs), (images, *outputs), strict=True):
        value.name = name


def _program(graph: Graph, images: Images) -> torch.export.ExportedProgram:
    """Return a program that takes any number of images."""
    shapes = {"images": {0: torch.export.Dim("batch")}}
    return torch.export.export(graph, (torch.from_numpy(images),), dynamic_shapes=shapes)


WAYS = {"onnx": _onnx, "torch": _torch}


# ------------------------------------------------------------------------------------------- labels
def labels(ensemble: EnsembleNotes, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description of the exported program's input and outputs; `about` comes first."""
    notes = ensemble.first
    height, width = notes.format.level(notes.images.input)
    names = [category.name for category in notes.categories]
    box = {"margin": notes.images.box_margin} if notes.images.crop == "box" else None
    licenses = dict.fromkeys(one.notes.weights_license for one in ensemble.members)
    return {
        "schema_version": 1,
        **about,
        "input": {
            "name": input_name(names),
            "type": "uint8",
            "shape": ["batch", height, width, 3],
            "channels": "RGB",
        },
        "fit": notes.images.fit,
        "box": box,
        "preparation": notes.format.as_python(notes.images.input),
        "inside": _inside(ensemble),
        "categories": list(_categories(ensemble)),
        "weights_license": ", ".join(filter(None, licenses)) or None,
        "metric": notes.metric,
        "versions": notes.versions,
    }


def _inside(ensemble: EnsembleNotes) -> dict[str, Any]:
    """Return what the program does to images and logits internally; for each network if there are several."""
    found = [
        {
            "network_input": list(one.notes.images.input),
            "mean": list(one.notes.images.mean),
            "std": list(one.notes.images.std),
            "views": one.notes.calibration.views.count,
            "tau": one.notes.calibration.tau,
            "temperature": dict(one.temperature),
        }
        for one in ensemble.members
    ]
    if len(found) == 1:
        return {**found[0], "temperature": ensemble.temperature}
    shared = [{"share": one.share, **each} for one, each in zip(ensemble.members, found, strict=True)]
    return {"networks": shared, "temperature": ensemble.temperature}


def _categories(ensemble: EnsembleNotes) -> Iterator[dict[str, Any]]:
    """Yield each category's classes and, with several answers, the probabilities above which they are answers.

    Fitted thresholds apply to logits before the temperature.
    """
    width = sum(len(one.classes) for one in ensemble.first.categories)
    zeros = [np.zeros((1, width), np.float32) for _ in ensemble.members]
    above = ensemble.mean(zeros) - ensemble.mean(zeros, thresholds=True)  # [1, sum C], what answers must exceed
    shares = answers.probabilities(above, ensemble.first.asked, ensemble.temperature)[0]
    for span in spans(ensemble.first.asked):
        one = span.category
        limits = shares[span.classes].tolist() if one.multi else None
        yield {"name": one.name, "classes": list(one.classes), "multi": one.multi, "thresholds": limits}


def main() -> None:
    """Answer the request {"model", "remake", "extensions", "threads", "format", "folder", "file", "about"} on
    stdin, in JSON; a fault is answered with {"error"}.
    """
    logging.disable(logging.WARNING)
    with extensions.answering() as answer:
        try:
            document = exported(json.load(sys.stdin))
        except UserError as error:
            document = {"error": error.document()}
        print(json.dumps(document), file=answer, flush=True)


if __name__ == "__main__":
    main()
    leave()
