"""Weights and training states on disk: written whole, verified when read, never unpickled."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from trainers.errors import EnvironmentFault
from trainers.files import whole

_MARK = b"sha256:"
_TAIL = len(_MARK) + 32
FOREIGN = (".pth", ".pt", ".bin", ".tar")


class _Hashing:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state of tensors and plain types; the digest of the rest is its last 39 bytes."""
    with whole(path) as file:
        hashing = _Hashing(file)
        torch.save(dict(state), hashing)  # type: ignore[arg-type]
        file.write(_MARK + hashing.digest.digest())


def load_state(path: Path) -> dict[str, Any] | None:
    """The state saved at `path`, on the CPU; None when there is none, or when not every byte is as written."""
    if not path.exists() or not _intact(path):
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _intact(path: Path) -> bool:
    size = path.stat().st_size - _TAIL
    if size <= 0:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (chunk := file.read(min(size, 1 << 20))):
            digest.update(chunk)
            size -= len(chunk)
        return file.read() == _MARK + digest.digest()


def save_weights(path: Path, weights: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write weights as safetensors, with `notes` as JSON in its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with whole(path) as file:
        file.write(save(tensors, metadata={"sweep": json.dumps(notes)}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name: .safetensors, or one that torch.save wrote (FOREIGN).

    Raises EnvironmentFault when it cannot be read as one, or would have to run code to be read.
    """
    if path.suffix in FOREIGN:
        return _foreign(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, str(error)) from error
    return tensors


def _foreign(path: Path) -> dict[str, Tensor]:
    """Tensors at the top level or under `state_dict` or `model`; the prefix of a parallel model is taken off."""
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of whoever's making breaks in every way there is
        raise _unreadable(path, (str(error) or type(error).__name__).split(". ")[0]) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise _unreadable(path, "it does not hold tensors by name")
    parallel = all(name.startswith("module.") for name in found)
    return {name.removeprefix("module.") if parallel else name: value for name, value in found.items()}


def _unreadable(path: Path, why: str) -> EnvironmentFault:
    advice = "a .safetensors file is needed, or a .pth file of tensors alone"
    return EnvironmentFault(f"cannot read weights: {why}", where=str(path), help=advice)


def read_notes(path: Path) -> dict[str, Any]:
    """The notes that `save_weights` put beside the weights; the weights themselves are not read."""
    with safe_open(path, framework="numpy") as file:
        notes: dict[str, Any] = json.loads(file.metadata()["sweep"])
    return notes


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a numpy array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)  # straight to a file, a full disk would be an error without a number
    with whole(path) as file:
        file.write(buffer.getbuffer())
