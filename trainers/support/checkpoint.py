"""Weights and training states on disk: written atomically, verified when read, never unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from trainers.support.checksummed import BLANK, as_written, checksum_ok, notes_of, write_with_checksum
from trainers.support.errors import EnvironmentFault
from trainers.support.files import atomic_write


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state of tensors and plain types; its last 39 bytes are the digest of the rest."""
    with write_with_checksum(path) as file:
        torch.save(dict(state), file)  # type: ignore[arg-type]


def load_state(path: Path) -> dict[str, Any] | None:
    """Return the state saved at `path`, on the CPU; None if there is none, or if any byte has changed.

    Also None if code would have to be run to read it.
    """
    if not path.exists() or not checksum_ok(path):
        return None
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # noqa: BLE001  the digest is right, so it was made to fail or to run code
        return None
    return state if isinstance(state, dict) else None


def save_weights(path: Path, weights: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write weights as safetensors, with `notes` and a digest of the whole file as JSON in the metadata.

    The digest is that of the file with zeros in the place of the digest.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    content = save(tensors, metadata={"sweep": json.dumps({"sha256": BLANK, **notes})})
    at = content.index(BLANK.encode())  # the first value of the notes, in the header at the start of the file
    with atomic_write(path) as file:
        file.write(content[:at])
        file.write(hashlib.sha256(content).hexdigest().encode())
        file.write(memoryview(content)[at + len(BLANK) :])


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, by name.

    Raises EnvironmentFault if it cannot be read as one, or is one of ours and has changed since it was written.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
        sound = as_written(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not sound:
        raise _unreadable(path, "it is damaged: its checksum does not match its content")
    return tensors


def _unreadable(path: Path, why: str) -> EnvironmentFault:
    return EnvironmentFault(f"cannot read weights: {why}", where=str(path), help="give a .safetensors file")


def read_notes(path: Path) -> dict[str, Any]:
    """Return the notes that `save_weights` stored with the weights; the weights themselves are not read.

    Raises EnvironmentFault if there are none.
    """
    try:
        notes = notes_of(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if notes.pop("sha256", None) is None:
        raise _unreadable(path, "it was not written by sweep")
    return notes
