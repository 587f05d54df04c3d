"""Weights files of other people's making: known by their content, read without running code, put into timm's keys."""

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
"""Keys of a checkpoint under which its weights lie; of those that are there, the first is taken."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put before the names of a module, at any depth."""
DEEPEST = 4  # levels at which a checkpoint is searched for its weights
ARCHIVES = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"\xfd7zX": "xz", b"Rar!": "rar", b"(\xb5/\xfd": "zstd"}
AGAIN = "fetch the file again"
WANTED = "a .safetensors file is needed, or a file in which torch.save put tensors by name"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and in words what was chosen or left out to get them."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read(path: Path) -> Weights:
    """The weights in a file, averaged ones where there are any.

    Raises EnvironmentFault when it holds none, or when code would have to be run to read it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "name a file that you may read") from error
    _refuse_others(path, start)
    if start[8:9] == b"{" or not start.startswith((b"PK", b"\x80")):  # a header's length may begin with \x80
        return Weights(_safetensors(path, start))
    return _unwrapped(path, _torch(path))


def under(weights: Weights, wanted: Iterable[str]) -> Weights:
    """The weights with the prefix taken off under which most of the `wanted` keys lie, and without all others.

    Of several prefixes that have as many, one that names an average is taken, else the first.
    """
    known = set(wanted)
    tensors = {_unwrapped_key(key): tensor for key, tensor in weights.tensors.items()}
    counts = Counter(key[:at] for key in tensors for at in _starts(key) if key[at:] in known)
    most = max(counts.values(), default=0)
    best = sorted((prefix for prefix, count in counts.items() if count == most), key=_rank)
    wrapped = [name.rstrip(".") for name in WRAPPERS if any(name in key for key in weights.tensors)]
    notes = [*weights.notes, *(f"{name} is taken off the names of its keys" for name in wrapped)]
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
    beside = f", not those under {' or '.join(map(repr, others))}" if others else ""
    more = f"; {left} keys without it are left out" if left else ""
    return f"takes the weights under {prefix!r}{beside}{more}"


def _unwrapped_key(key: str) -> str:
    for name in WRAPPERS:
        key = key.replace(name, "")
    return key


# ------------------------------------------------------------------------------------------- reading
def _refuse_others(path: Path, start: bytes) -> None:
    """Raise EnvironmentFault for what is known not to be weights."""
    if not start:
        raise _unreadable(path, "the file is empty", AGAIN)
    if start.startswith(b"version https://git-lfs"):
        advice = "run git lfs pull in the clone that it lies in"
        raise _unreadable(path, "it is a Git LFS pointer, not the weights themselves", advice)
    for magic, kind in ARCHIVES.items():
        if start.startswith(magic):
            raise _unreadable(path, f"it is a {kind} archive", "unpack it, and name the weights file inside")
    if (text := _text(start)) is not None:
        page = text.lstrip().startswith("<")
        kind = "a web page, perhaps a server's refusal" if page else "a text"
        raise _unreadable(path, f"it is {kind}, not weights", f"{AGAIN}, from the address of the file itself")


def _text(start: bytes) -> str | None:
    """The beginning of a file as text, where it is one."""
    text = start.decode("utf-8", errors="ignore")
    plain = all(letter.isprintable() or letter.isspace() for letter in text)
    return text if plain and len(text.encode()) > len(start) - 4 else None


def _safetensors(path: Path, start: bytes) -> dict[str, Tensor]:
    try:
        return load_weights(path)
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, SafetensorError):
            cut = start[8:9] == b"{"
            why = "the file is damaged or cut short" if cut else "it is neither safetensors nor a file of torch.save"
            raise _unreadable(path, why, AGAIN if cut else WANTED) from fault
        raise


def _torch(path: Path) -> Any:
    """What torch.save wrote; raises EnvironmentFault where more than tensors and plain types are in it."""
    _refuse_archives(path)
    try:
        with path.open("rb") as file:  # by its path torch would go by its name
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of whoever's making breaks in every way there is
        if names := _objects(path):
            raise _unreadable(path, _named(names), _way_out(path, names)) from error
        why = (str(error) or type(error).__name__).split(". ")[0]
        raise _unreadable(path, f"it is damaged, or torch did not write it: {why}", AGAIN) from error


def _refuse_archives(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return  # of a torch before 1.6
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise _unreadable(path, "the file is damaged or cut short", AGAIN) from None
    if not any(name.endswith("data.pkl") for name in names):
        inside = f"it is a zip archive, of {', '.join(names[:3]) or 'nothing'}"
        raise _unreadable(path, inside, "unpack it, and name the weights file inside")
    if any(name.endswith("constants.pkl") for name in names):
        advice = _line(path, "torch.jit.load", "", "c.state_dict()")
        raise _unreadable(path, "it is a TorchScript program, which would have to be run", advice)


def _objects(path: Path) -> list[str]:
    """The classes and functions that a pickle asks for beyond tensors and plain types; nothing is run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001  not even the list can be read
        return []


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"besides tensors it holds objects ({', '.join(names[:3])}{more}), which only running code would make"


def _way_out(path: Path, names: list[str]) -> str:
    """For a pickled module its state, else what lies under the key that weights have."""
    content = _pickle(path)
    keys = (*AVERAGED, *PLAIN) if _is_mapping(content) else ()
    key = next((key for key in keys if _mentions(content, key)), "")
    inside = f"c[{key!r}]" if key else "c"
    whole = any(name.startswith("torch.nn.modules.") for name in names)
    how = ", 'cpu', weights_only=False"
    return _line(path, "torch.load", how, f"{inside}.state_dict()" if whole else inside)


def _pickle(path: Path) -> bytes:
    """The pickle in a file of torch.save; nothing in one of a torch before 1.6."""
    if not zipfile.is_zipfile(path):
        return b""
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _is_mapping(content: bytes) -> bool:
    """Whether a pickle begins with a dict, rather than with the class of a module that was saved whole."""
    operations = ((code.name, value) for code, value, _ in pickletools.genops(content)) if content else ()
    first = next((one for one in operations if one[0] != "PROTO"), ("", None))
    return first in (("EMPTY_DICT", None), ("GLOBAL", "collections OrderedDict"))


def _mentions(content: bytes, text: str) -> bool:
    """Whether a pickle holds this text (opcode BINUNICODE)."""
    return b"X" + len(text).to_bytes(4, "little") + text.encode() in content


def _line(path: Path, load: str, how: str, weights: str) -> str:
    """How a person who trusts the file saves its tensors alone."""
    target = str(path.with_suffix(".safetensors"))
    code = (
        f"import torch; from safetensors.torch import save_file; c = {load}({str(path)!r}{how}); "
        f"save_file({{k: torch.as_tensor(v).contiguous().clone() for k, v in {weights}.items()}}, {target!r})"
    )
    return f'if you trust it, save the tensors alone: python -c "{code}"'


def _unreadable(path: Path, why: str, advice: str) -> EnvironmentFault:
    return EnvironmentFault(f"cannot read weights: {why}", where=str(path), help=advice)


# ------------------------------------------------------------------------------------------ unwrapping
def _unwrapped(path: Path, found: Any) -> Weights:
    """The tensors by name somewhere in a checkpoint."""
    notes: list[str] = []
    for _ in range(DEEPEST):
        keys = [key for key in (*AVERAGED, *PLAIN) if isinstance(found, dict) and _holds(found.get(key))]
        if not keys:
            break
        if keys[0] in AVERAGED:
            beside = f", not those under {' or '.join(map(repr, keys[1:]))}" if keys[1:] else ""
            notes.append(f"takes the averaged weights, under {keys[0]!r}{beside}")
        found = found[keys[0]]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise _unreadable(path, "it does not hold tensors by name", WANTED)
    return Weights({str(key): tensor for key, tensor in found.items()}, tuple(notes))


def _holds(value: Any, depth: int = DEEPEST) -> bool:
    """Whether a mapping has tensors in it, or further mappings that do."""
    if not isinstance(value, Mapping) or not depth:
        return False
    return any(isinstance(inner, Tensor) or _holds(inner, depth - 1) for inner in value.values())
