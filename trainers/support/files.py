"""Writing files whole or not at all, and reading none that never ends."""

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trainers.support.errors import EnvironmentFault
from trainers.support.failpoints import failpoint

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NEXT = "next."  # before the names of files that wait for their epoch to be on record
LARGEST = 1 << 30  # bytes of what is read in one piece


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` complete, synced to disk, or does not appear at all.

    An exception inside the block, a full disk included, leaves what was at `path` before, and no rest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        failpoint(f"written {path.name}")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    failpoint(f"renamed {path.name}")
    sync_folder(path.parent)


def full(error: BaseException | None) -> bool:
    """Whether behind `error` is a disk that takes no more: it, its quota, or the limit on a file's size is used up.

    What a library raises while it closes the file may hide that.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def append(path: Path, line: bytes, *, sync: bool) -> None:
    """Add `line` to the file at `path`; where that fails (OSError), a full disk included, it stays as it was."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(handle).st_size
        failpoint(f"half {path.name}", torn=lambda: os.write(handle, line[: len(line) // 2]))
        try:
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            if sync:
                os.fsync(handle)
        except OSError:
            os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)
    failpoint(f"written {path.name}")


def expanded(path: str) -> str:
    """`path` with the folder that a leading ~ or ~USER stands for. Raises ValueError where there is none."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"no home folder is known for {path!r}; ./{path} is a folder of that name") from None


def recordable(path: Path) -> Path:
    """The same path. Raises EnvironmentFault for one that is not UTF-8, which no record could name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        help = "rename that file or folder, or take another"
        raise EnvironmentFault("a name that is not UTF-8", where=str(path), help=help) from None
    return path


def as_on_disk(path: Path) -> Path:
    """`path`, or where nothing is there the path whose names are the same in another Unicode form.

    An ä is one character or two, and macOS and unzip do not agree which; a person sees no difference.
    """
    if path.exists() or str(path).isascii():
        return path
    parent = as_on_disk(path.parent)
    same = [one for one in parent.iterdir() if form(one.name) == form(path.name)] if parent.is_dir() else []
    return same[0] if len(same) == 1 else path


def form(name: str) -> str:
    """The name in the Unicode form in which equal looks are equal characters: NFC."""
    return unicodedata.normalize("NFC", name)


def regular(path: Path) -> Path:
    """The same path, if a file of bearable size is there; a pipe or a device would never end. Raises OSError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file but a folder, a pipe or a device", str(path))
    if found.st_size > LARGEST:
        raise OSError(errno.EINVAL, f"a file of {found.st_size / 1e9:.1f} GB", str(path))
    return path


def write_text(path: Path, text: str) -> None:
    """Put UTF-8 `text` at `path`, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
