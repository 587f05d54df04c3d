"""Local weights in the usual layouts: a file, timm's own folder, or a folder of either. Reads no weights."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainers.support.errors import EnvironmentFault
from trainers.support.files import expanded

CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
"""timm's names for the weights beside its config.json; the first that exists is used."""
OURS = ("num_classes", "pretrained", "features_only")
"""Arguments of timm's models that follow from the recipe."""


@dataclass(frozen=True)
class LocalWeights:
    """The file of a backbone's weights, and timm's config.json beside it, if any."""

    file: Path
    config: Path | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The description of the weights in config.json beside them."""

    architecture: str
    arguments: dict[str, str | int | float | bool]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    licence: str = ""


def find(weights: str, backbone: str) -> LocalWeights:
    """Return the place, existing or not, of a backbone's `weights`: a file, timm's folder, or a folder of either.

    In a folder of either, an entry may have the backbone's name without its tag, the part after the dot.
    """
    path = Path(expanded(weights))
    if not path.is_dir():
        return LocalWeights(path)
    called = dict.fromkeys((backbone, backbone.partition(".")[0]))
    files = [path / f"{name}.safetensors" for name in called]
    if known := [file for file in files if file.exists()]:
        return LocalWeights(known[0])
    for folder in (path, *(path / name for name in called)):
        if (folder / CONFIG).is_file():
            file = next((folder / name for name in FILES if (folder / name).exists()), folder / FILES[0])
            return LocalWeights(file, folder / CONFIG)
    return LocalWeights(files[0])


def names(weights: str) -> list[str]:
    """Return the backbones whose weights a folder holds, by the names of its files and folders."""
    path = Path(expanded(weights))
    if not path.is_dir():
        return []
    if (path / CONFIG).is_file():
        return [config(path / CONFIG).architecture]
    return sorted(set(_names(path)))


def _names(path: Path) -> Iterator[str]:
    for one in path.iterdir():
        if one.suffix == ".safetensors":
            yield one.stem
        elif (one / CONFIG).is_file():
            yield one.name


def config(path: Path) -> ModelConfig:
    """Read timm's config.json at `path`. Raises EnvironmentFault if it is not one."""
    try:
        state = path.stat()
    except OSError as error:
        raise _unread(path, error.strerror or str(error)) from error
    return _config(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _config(path: Path, time: int, size: int) -> ModelConfig:  # noqa: ARG001  another time or size is another file
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        published = read.get("pretrained_cfg", read)  # before timm 0.9 they are at the top level
        given = {key: value for key, value in read.get("model_args", {}).items() if value is not None}
        return ModelConfig(
            str(read["architecture"]),
            _arguments({key: value for key, value in given.items() if key not in OURS}, path),
            _channels(published.get("mean")),
            _channels(published.get("std")),
            str(published.get("license") or ""),
        )
    except OSError as error:
        raise _unread(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise _unread(path, f"it is not a config.json of timm: {error!r}") from error


def _arguments(given: dict[str, Any], path: Path) -> dict[str, str | int | float | bool]:
    for key, value in given.items():
        if not isinstance(value, str | int | float | bool):
            raise _unread(path, f"model_args.{key} is {json.dumps(value)}, but only single values are supported")
    return given


def _channels(value: Any) -> tuple[float, ...]:
    """Return the mean or standard deviation of three channels; empty if there is none."""
    found = tuple(map(float, value or ()))
    return found if len(found) == 3 else ()


def _unread(path: Path, why: str) -> EnvironmentFault:
    advice = "save the model again with timm, or give the weights file itself as train.weights"
    return EnvironmentFault(f"cannot read the description of the weights: {why}", where=str(path), help=advice)
