"""Weights files from elsewhere: recognised by their content, read without running code, mapped to timm's keys."""

import pickletools
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from trainers.support.checkpoint import load_weights
from trainers.support.errors import EnvironmentFault

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_state_dict_ema", "params_ema", "ema", "teacher")
PLAIN = ("state_dict", "model_state_dict", "model", "net", "module", "params", "student")
"""Keys under which a checkpoint may hold its weights; the first one present is used."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Prefixes that torch.compile, FSDP and activation checkpointing add to names of modules, at any depth."""
DEEPEST = 4  # levels at which a checkpoint is searched for its weights
ARCHIVES = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"\xfd7zX": "xz", b"Rar!": "rar", b"(\xb5/\xfd": "zstd"}
AGAIN = "download the file again"
WANTED = "use a .safetensors file, or a file of named tensors saved by torch.save"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, with notes in words on what was chosen or left out to get them."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read(path: Path) -> Weights:
    """Return the weights in a file, the averaged ones if there are any.

    Raises EnvironmentFault if it holds none, or if code would have to be run to read it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise _unreadable(
            path, error.strerror or str(error), "give a file that you have permission to read"
        ) from error
    _refuse_others(path, start)
    if start[8:9] == b"{" or not start.startswith((b"PK", b"\x80")):  # a header's length may start with \x80
        return Weights(_safetensors(path, start))
    return _unwrapped(path, _torch(path))


def under(weights: Weights, wanted: Iterable[str]) -> Weights:
    """Return the weights under the prefix that has most of the `wanted` keys, without that prefix and all others.

    If several prefixes have equally many, one that names an average wins, else the first.
    """
    known = set(wanted)
    tensors = {_unwrapped_key(key): tensor for key, tensor in weights.tensors.items()}
    counts = Counter(key[:at] for key in tensors for at in _starts(key) if key[at:] in known)
    most = max(counts.values(), default=0)
    best = sorted((prefix for prefix, count in counts.items() if count == most), key=_rank)
    wrapped = [name.rstrip(".") for name in WRAPPERS if any(name in key for key in weights.tensors)]
    notes = [*weights.notes, *(f"removes {name} from the names of its keys" for name in wrapped)]
    if not best or best == [""]:
        return Weights(tensors, tuple(notes))
    prefix, *others = best
    inside = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return Weights(inside, (*notes, _taken(prefix, others, len(tensors) - len(inside))))


def _starts(key: str) -> list[int]:
    return [0, *(at + 1 for at, letter in enumerate(key) if letter == ".")]


def _rank(prefix: str) -> bool:
    return not any(word in AVERAGED or word.startswith("ema") for word in prefix.split("."))


def _taken(prefix: str, others: list[str], left: int) -> str:
    beside = f" instead of those under {' or '.join(map(repr, others))}" if others else ""
    more = f"; leaves out {left} keys without this prefix" if left else ""
    return f"uses the weights under {prefix!r}{beside}{more}"


def _unwrapped_key(key: str) -> str:
    for name in WRAPPERS:
        key = key.replace(name, "")
    return key


# ------------------------------------------------------------------------------------------- reading
def _refuse_others(path: Path, start: bytes) -> None:
    """Raise EnvironmentFault for content that is known not to be weights."""
    if not start:
        raise _unreadable(path, "the file is empty", AGAIN)
    if start.startswith(b"version https://git-lfs"):
        advice = "run git lfs pull in the clone that contains it"
        raise _unreadable(path, "it is a Git LFS pointer, not the weights themselves", advice)
    for magic, kind in ARCHIVES.items():
        if start.startswith(magic):
            raise _unreadable(path, f"it is a {kind} archive", "unpack it, and give the weights file inside")
    if (text := _text(start)) is not None:
        page = text.lstrip().startswith("<")
        kind = "a web page, perhaps a server's error page" if page else "a text file"
        raise _unreadable(path, f"it is {kind}, not weights", f"{AGAIN}, from the URL of the file itself")


def _text(start: bytes) -> str | None:
    """Return the start of a file as text, if it is text."""
    text = start.decode("utf-8", errors="ignore")
    plain = all(letter.isprintable() or letter.isspace() for letter in text)
    return text if plain and len(text.encode()) > len(start) - 4 else None


def _safetensors(path: Path, start: bytes) -> dict[str, Tensor]:
    try:
        return load_weights(path)
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, SafetensorError):
            cut = start[8:9] == b"{"
            why = (
                "the file is damaged or truncated" if cut else "it is neither safetensors nor a file from torch.save"
            )
            raise _unreadable(path, why, AGAIN if cut else WANTED) from fault
        raise


def _torch(path: Path) -> Any:
    """Return the content of a torch.save file. Raises EnvironmentFault for more than tensors and plain types."""
    _refuse_archives(path)
    try:
        with path.open("rb") as file:  # given a path, torch would judge it by its name
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file from elsewhere can fail in any way
        if names := _objects(path):
            raise _unreadable(path, _named(names), _way_out(path, names)) from error
        why = (str(error) or type(error).__name__).split(". ")[0]
        raise _unreadable(path, f"it is damaged, or was not written by torch: {why}", AGAIN) from error


def _refuse_archives(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return  # from a torch before 1.6
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise _unreadable(path, "the file is damaged or truncated", AGAIN) from None
    if not any(name.endswith("data.pkl") for name in names):
        inside = f"it is a zip archive that holds {', '.join(names[:3]) or 'nothing'}"
        raise _unreadable(path, inside, "unpack it, and give the weights file inside")
    if any(name.endswith("constants.pkl") for name in names):
        advice = _line(path, "torch.jit.load", "", "c.state_dict()")
        raise _unreadable(path, "it is a TorchScript program, which would have to be run to read it", advice)


def _objects(path: Path) -> list[str]:
    """Return the classes and functions that a pickle needs beyond tensors and plain types; nothing is run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001  even the list is unreadable
        return []


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"besides tensors it holds objects ({', '.join(names[:3])}{more}), which only running code could create"


def _way_out(path: Path, names: list[str]) -> str:
    """Return the advice: to save the state of a pickled module, or else the content under a key for weights."""
    content = _pickle(path)
    keys = (*AVERAGED, *PLAIN) if _is_mapping(content) else ()
    key = next((key for key in keys if _mentions(content, key)), "")
    inside = f"c[{key!r}]" if key else "c"
    whole = any(name.startswith("torch.nn.modules.") for name in names)
    how = ", 'cpu', weights_only=False"
    return _line(path, "torch.load", how, f"{inside}.state_dict()" if whole else inside)


def _pickle(path: Path) -> bytes:
    """Return the pickle in a file from torch.save; empty for one from a torch before 1.6."""
    if not zipfile.is_zipfile(path):
        return b""
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _is_mapping(content: bytes) -> bool:
    """True if a pickle starts with a dict, not with the class of a module that was saved whole."""
    operations = ((code.name, value) for code, value, _ in pickletools.genops(content)) if content else ()
    first = next((one for one in operations if one[0] != "PROTO"), ("", None))
    return first in (("EMPTY_DICT", None), ("GLOBAL", "collections OrderedDict"))


def _mentions(content: bytes, text: str) -> bool:
    """True if a pickle holds this text (opcode BINUNICODE)."""
    return b"X" + len(text).to_bytes(4, "little") + text.encode() in content


def _line(path: Path, load: str, how: str, weights: str) -> str:
    """Return the command with which someone who trusts the file saves only its tensors."""
    target = str(path.with_suffix(".safetensors"))
    code = (
        f"import torch; from safetensors.torch import save_file; c = {load}({str(path)!r}{how}); "
        f"save_file({{k: torch.as_tensor(v).contiguous().clone() for k, v in {weights}.items()}}, {target!r})"
    )
    return f'if you trust it, save only the tensors: python -c "{code}"'


def _unreadable(path: Path, why: str, advice: str) -> EnvironmentFault:
    return EnvironmentFault(f"cannot read weights: {why}", where=str(path), help=advice)


# ------------------------------------------------------------------------------------------ unwrapping
def _unwrapped(path: Path, found: Any) -> Weights:
    """Return the named tensors, which may be nested in a checkpoint."""
    notes: list[str] = []
    for _ in range(DEEPEST):
        keys = [key for key in (*AVERAGED, *PLAIN) if isinstance(found, dict) and _holds(found.get(key))]
        if not keys:
            break
        if keys[0] in AVERAGED:
            beside = f" instead of those under {' or '.join(map(repr, keys[1:]))}" if keys[1:] else ""
            notes.append(f"uses the averaged weights under {keys[0]!r}{beside}")
        found = found[keys[0]]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise _unreadable(path, "it does not hold named tensors", WANTED)
    return Weights({str(key): tensor for key, tensor in found.items()}, tuple(notes))


def _holds(value: Any, depth: int = DEEPEST) -> bool:
    """True if a mapping holds tensors, or further mappings that do."""
    if not isinstance(value, Mapping) or not depth:
        return False
    return any(isinstance(inner, Tensor) or _holds(inner, depth - 1) for inner in value.values())
