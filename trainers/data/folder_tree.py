"""The contents of a folder: images in order, other files by extension, and what is not meant for training."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NoReturn

from trainers.data.images import EXTENSIONS, UNREAD
from trainers.data.table import Remarks
from trainers.support.errors import Fault
from trainers.support.text import on_one_line

SERVICE = {
    *("__macosx", "__pycache__", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found"),
    *("network trash folder", "temporary items", "node_modules", "wandb", "lightning_logs"),
}
JUNK = {"thumbs.db", "desktop.ini"}
SHOWN = 8  # extensions or folders named in one note
ARCHIVES = dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2"), "unpack it")
WHY = ARCHIVES | UNREAD


def unpacking(path: Path) -> str:
    """Return the help that shows how to unpack an archive next to itself; empty if the file is not an archive."""
    name, ending = path.name.lower(), path.suffix.lower()
    folder = path.with_name(path.name.partition(".")[0])
    packed, there = shlex.quote(str(path)), shlex.quote(str(folder))
    if ".tar" in name or ending == ".tgz":
        return f"unpack it: mkdir {there} && tar -xf {packed} -C {there}"
    tools = {".zip": "unzip {} -d {}", ".7z": "7z x {} -o{}", ".rar": "unrar x {} {}/"}
    if ending in tools:
        return f"unpack it: {tools[ending].format(packed, there)}"
    single = {".gz": "gunzip", ".xz": "unxz", ".bz2": "bunzip2"}
    return f"unpack it: {single[ending]} {packed}" if ending in single else ""


@dataclass(frozen=True)
class Look:
    """The images of one folder, as slash-separated paths from the root, and its other files by extension."""

    images: list[str]
    others: Counter[str]

    @property
    def unread(self) -> bool:
        """True if the folder holds pictures that must be converted first."""
        return any(ending in UNREAD for ending in self.others)


@dataclass(frozen=True)
class Tree:
    """The folders of a data set. Links inside it are followed, and no folder is visited twice in one look."""

    root: Path
    hidden: dict[str, int] = field(default_factory=dict)
    outside: dict[str, Fault] = field(default_factory=dict)
    loops: dict[str, Fault] = field(default_factory=dict)

    def folders(self, top: Path) -> list[Path]:
        """Return the folders in `top` that may hold images of the data set."""
        return sorted(path for path in top.iterdir() if path.is_dir() and self._enters(path))

    def look(self, folder: Path, *, deep: bool = True) -> Look:
        """Return the contents of a folder, with everything below it unless `deep` is False."""
        look = Look([], Counter())
        done: set[Path] = set()
        todo = [folder]
        while todo:
            top = todo.pop(0)
            if top.resolve() not in done:
                todo += self._walk(top, deep, done, look)
        return look

    def remark(self, remarks: Remarks, others: Counter[str]) -> None:
        """Report what was left out: hidden images, links, and these files by extension."""
        remarks.faults.extend(self.outside.values())
        remarks.notes.extend(self.loops.values())
        if images := sum(self.hidden.values()):
            where = _some(f"{on_one_line(name)} ({count})" for name, count in sorted(self.hidden.items()) if count)
            what = f"left out: {images} hidden image{'s' * (images > 1)} in {where}"
            remarks.notes.append(Fault(str(self.root), what, "what systems and tools leave behind is not data"))
        if others:
            remarks.notes.append(Fault(str(self.root), f"left out: {by_extension(others)}"))

    def _walk(self, top: Path, deep: bool, done: set[Path], look: Look) -> list[Path]:
        """Add the contents to `look`; return the linked folders, which are visited after all others."""
        links: list[Path] = []
        for where, below, names in os.walk(top, onerror=_complain):
            place = Path(where)
            done.add(place.resolve())
            inner = [place / name for name in sorted(below)] if deep else []
            entered = [path for path in inner if self._enters(path) and path.resolve() not in done]
            below[:] = [path.name for path in entered]
            links += [path for path in entered if path.is_symlink()]
            self._sort(place, sorted(names), look)
        return links

    def _sort(self, place: Path, names: list[str], look: Look) -> None:
        inside = place.relative_to(self.root)
        before = f"{inside.as_posix()}/" if inside.parts else ""
        for name in names:
            if _is_image(name) and not name.startswith("."):
                look.images.append(before + name)
            elif not name.startswith(".") and name.lower() not in JUNK:
                ending = PurePath(name).suffix.lower()
                if before or ending in WHY:  # the root may hold anything
                    look.others[ending] += 1
        if hidden := sum(name.startswith(".") and _is_image(name) for name in names):
            self.hidden[f"{before}.*"] = hidden

    def _enters(self, path: Path) -> bool:
        """True if a folder belongs to the data set; record it if it does not."""
        name = path.relative_to(self.root).as_posix()
        if is_service(path.name):
            if name not in self.hidden:  # count it only once: it may be large, like a Python environment
                self.hidden[name] = sum(_is_image(file) for _, _, files in os.walk(path) for file in files)
            return False
        if path.is_symlink():
            target = path.resolve()
            if not target.is_relative_to(self.root.resolve()):
                help = "copy the images, or set data.root to the folder that holds them"
                what = f"the folder {name!r} is refused: a link out of the data set"
                self.outside[name] = Fault(on_one_line(name), what, help)
                return False
            if path.parent.resolve().is_relative_to(target):
                self.loops[name] = Fault(on_one_line(name), "a link to a folder that contains it: not followed")
                return False
        return not _of_sweep(path) and not (path / "pyvenv.cfg").is_file()


def is_service(name: str) -> bool:
    """True if a folder of this name belongs to the system or to a tool, and holds no data."""
    return name.startswith((".", "@")) or name.lower() in SERVICE


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def by_extension(others: Counter[str]) -> str:
    """List files by extension: 12 .heic (Pillow cannot read HEIC: convert them to JPEG), 3 .txt."""
    counts = sorted(others.items(), key=lambda item: (item[0] not in WHY, -item[1], item[0]))
    return _some(
        f"{count} {on_one_line(ending) or 'without extension'}" + (f" ({WHY[ending]})" if ending in WHY else "")
        for ending, count in counts
    )


def _some(words: Iterator[str]) -> str:
    shown = list(words)
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more


def _of_sweep(path: Path) -> bool:
    """True if a check or a study created it: mlruns, or the folder that SWEEP_HOME names."""
    if (path / "cache" / "checked").is_dir():
        return True
    return (path / "studies").is_dir() and ((path / "cache").is_dir() or (path / "mlflow.db").is_file())


def _complain(error: OSError) -> NoReturn:
    """Raise the error, because a folder that cannot be read is not an empty one."""
    raise error
