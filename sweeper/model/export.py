"""`sweep export`: export a model for use without sweep, as it is, without retraining."""

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sweeper import text
from sweeper.errors import EnvironmentFault, UserError
from sweeper.model import image_files, process, sample, serving
from sweeper.model.find import FoundModel
from sweeper.store.paths import RunFolder
from sweeper.terminal.output import print_message
from sweeper.text import redacted
from sweeper.tracking import catching_up, client, sync_state
from sweeper.tracking.sync_state import RunSyncState, StudySyncState
from trainers.support.files import sha256, sync_folder
from trainers.support.text import did_you_mean

PROGRAMS = {"onnx": "model.onnx", "torch": "model.pt2"}
NEEDED = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "torch": ()}
RUNTIME = {"onnx": "ONNX Runtime", "torch": "torch.export"}
LABELS = "labels.json"
FORMATS = (*PROGRAMS, "mlflow", "csv")


@dataclass(frozen=True)
class Exported:
    """An export of a model: files, or a registered version, with a note about them."""

    format: str
    model: FoundModel
    files: tuple[Path, ...]
    note: str
    more: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the export as plain values for --json."""
        named = {key: getattr(self.model, key) for key in ("study", "trial", "kind")}
        files = [str(path) for path in self.files]
        model = {"path": str(self.model.path), **named}
        return {"schema_version": 1, "format": self.format, "model": model, "files": files, **self.more}


def format_of(word: str) -> str:
    """Return the format that `word` names. Raises UserError for any other word."""
    if word in FORMATS:
        return word
    help = did_you_mean(word, FORMATS) or f"use {text.join_or(FORMATS)}"
    raise UserError(f"no format {word!r}", where="sweep export --format", help=help)


def refuse_options(format: str, images: Sequence[str], like: Path | None, device: str | None) -> None:
    """Raise UserError if options do not fit the format."""
    if format == "csv" and like is None:
        help = "sweep predict MODEL IMAGES --csv FILE writes a CSV with its own columns"
        raise UserError(
            "--format csv fills in a sample submission: give it with --like FILE", where="sweep export", help=help
        )
    given = {"IMAGES": images, "--like": like, "--device": device}
    if format != "csv" and (wrong := [name for name, value in given.items() if value]):
        raise UserError(f"{wrong[0]} only works with --format csv", where="sweep export", help="leave it out")


def program(model: FoundModel, format: str, output: Path | None) -> Exported:
    """Write the model as a program, with labels.json, after checking that the program agrees with the model.

    `output` is a folder, or the program's file. Raises EnvironmentFault if it disagrees or packages are missing.
    """
    _refuse_lacking(format)
    folder, name = _place(model, format, output)
    words = model.words if model.study else model.path.name  # no path of this machine
    refuse_other_labels(folder / LABELS, name, words)
    with _written(folder) as temporary:
        about = {"model": words, "runtime": RUNTIME[format], "file": name}
        made = process.exported(model, format=format, folder=str(temporary), file=name, about=about)
    counts = ", ".join(map(str, made["batches"]))
    note = f"checked with {RUNTIME[format]} in batches of {counts} images: probabilities agree to {made['off']:.0e}"
    files = (folder / name, folder / LABELS)
    return Exported(format, model, files, note, {"off": made["off"], "batches": made["batches"]})


def mlflow_model(model: FoundModel, output: Path | None) -> Exported:
    """Register the model in MLflow, unless a version with the same weights exists, or only write it to `output`.

    It is an MLflow model that contains the model file unchanged; loading it requires sweep.
    """
    if output is not None:
        if output.exists():
            raise UserError("--output needs a new folder", where=str(output), help="remove it, or choose another")
        with _written(output.absolute()) as temporary:
            _save_mlflow(model, temporary)
        return Exported("mlflow", model, (output.absolute(),), "an MLflow model, not registered")
    run, name, checksum = _run(model), model.study or "", sha256(model.path)
    known = client.registered(name, checksum)
    address = known or _registered(model, name, run, checksum)
    store = shlex.quote(redacted(client.uri()))
    serve = f"MLFLOW_TRACKING_URI={store} mlflow models serve -m {address} --env-manager local"
    how = f"already registered as {address}, with the same weights" if known else "registered"
    return Exported("mlflow", model, (), f"{how}; to serve it: {serve}", {"address": address})


def _registered(model: FoundModel, name: str, run: str, checksum: str) -> str:
    """Register a new version and return its address."""
    with TemporaryDirectory() as folder:
        _save_mlflow(model, Path(folder))
        return client.register(name, run, Path(folder), model.words, checksum)


def _run(model: FoundModel) -> str:
    """Return the id of the model's run in MLflow, after sending the run if necessary."""
    if model.study is None:
        help = "--output FOLDER writes the MLflow model without registering it"
        raise UserError(
            "a model that belongs to no study here cannot be registered", where=str(model.path), help=help
        )
    folder = RunFolder(model.path.parent)
    catching_up.catch_up([folder.study], print_message)
    of_study = sync_state.read(folder.study.sync_state, StudySyncState)
    known = sync_state.read(folder.sync_state, RunSyncState)
    if known is None or of_study is None or (of_study.uri, of_study.run) != (client.uri(), known.parent):
        help = f"a running sweep will send it; otherwise, sweep ui {model.study} shows what is wrong"
        raise EnvironmentFault(f"MLflow does not have {model.words}", where=redacted(client.uri()), help=help)
    return known.run


def _save_mlflow(model: FoundModel, folder: Path) -> None:
    about = next(process.predictions(model, []))["model"]
    with TemporaryDirectory() as place:
        data = RunFolder(Path(place) / "files")
        data.root.mkdir()
        shutil.copy(model.path, data.model)
        if about["extensions"]:
            shutil.copytree(model.extensions, data.root / "extensions")
        answers = {one["name"]: one["multi"] for one in about["categories"]}
        client.save_model(folder, data.root, serving.__name__, answers)


def filled(model: FoundModel, images: Sequence[str], like: Path, output: Path | None, device: str | None) -> Exported:
    """Write the model's predictions in the format of the sample submission `like`."""
    place = output or Path(f"{model.name}.csv")
    if place.is_dir():
        raise UserError("--output needs a file here, but this is a folder", where=str(place), help="add a file name")
    if place.exists() and place.samefile(like):
        raise UserError("--output would overwrite the sample itself", where=str(place), help="choose another name")
    wanted = sample.asked(model, images)
    read = [model.path, *map(Path, images), *(Path(path) for path, _ in wanted.images)]
    image_files.refuse_overwriting("--output", place, read)
    count = sample.fill(model, wanted, like, place, device)
    return Exported(
        "csv", model, (place.absolute(),), f"{count} rows, as in {text.relative_path(like)}", {"rows": count}
    )


def _refuse_lacking(format: str) -> None:
    if lacking := [name for name in NEEDED[format] if find_spec(name) is None]:
        what = f"{RUNTIME[format]} needs packages that are not installed: {', '.join(lacking)}"
        raise EnvironmentFault(what, where=f"sweep export --format {format}", help=f"pip install {' '.join(lacking)}")


def _place(model: FoundModel, format: str, output: Path | None) -> tuple[Path, str]:
    """Return the folder and the name of the program's file."""
    name = PROGRAMS[format]
    if output is None:
        return Path(f"{model.name}-{format}").absolute(), name
    if output.suffix == Path(name).suffix and not output.is_dir():
        return output.parent.absolute(), output.name
    if output.exists() and not output.is_dir():
        raise UserError(
            "--output needs a folder, but this is a file", where=str(output), help=f"or end it in {Path(name).suffix}"
        )
    return output.absolute(), name


def refuse_other_labels(path: Path, name: str, words: str) -> None:
    """Raise UserError if labels.json already belongs to another model."""
    if not path.exists():
        return
    try:
        there = json.loads(path.read_bytes())
    except ValueError:
        there = None
    if not isinstance(there, dict) or (there.get("file") != name and there.get("model") != words):
        help = "choose another folder with --output"
        raise UserError(
            f"this {path.name} belongs to another model and is not overwritten", where=str(path), help=help
        )


@contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move to `folder` at the end; an exception leaves `folder` unchanged."""
    near = folder if folder.exists() else folder.parent
    temporary = near / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(
        temporary, ignore_errors=True
    )  # left by a killed process with our pid, which is common in containers
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            for path in sorted(temporary.iterdir()):
                path.replace(folder / path.name)
        else:
            temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
