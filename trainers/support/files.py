"""Atomic writes of files, and reads that refuse files without an end."""

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
NEXT = "next."  # prefix of files that wait until their epoch is recorded
LARGEST = 1 << 30  # bytes of a file that is read at once


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears at `path` complete and synced to disk, or not at all.

    After an exception inside the block, including a full disk, `path` is as before and nothing is left over.
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


@contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that a user named: the target of a link is replaced atomically, a pipe or device is written to."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    with atomic_write(path.resolve() if path.is_symlink() else path) as file:
        yield file


def full(error: BaseException | None) -> bool:
    """True if `error` was caused by a full disk, an exhausted quota or the limit on file size.

    The causes are searched too, because an error that a library raises on closing the file may hide it.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def append(path: Path, line: bytes, *, sync: bool) -> None:
    """Append `line` to the file at `path`; if that fails (OSError), as on a full disk, the file stays as it was."""
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
    """Return `path` with a leading ~ or ~USER expanded. Raises ValueError if there is no such home folder."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"no home folder is known for {path!r}; for a folder of that name, write ./{path}") from None


def recordable(path: Path) -> Path:
    """Return the same path. Raises EnvironmentFault if it is not UTF-8, because no record could store it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        help = "rename this file or folder, or use another"
        raise EnvironmentFault("this name is not UTF-8", where=str(path), help=help) from None
    return path


def as_on_disk(path: Path) -> Path:
    """Return `path` or, if it does not exist, the path whose names are equal in another Unicode form.

    An ä is one character or two, and macOS and unzip disagree on which; a person sees no difference.
    """
    if path.exists() or str(path).isascii():
        return path
    parent = as_on_disk(path.parent)
    same = [one for one in parent.iterdir() if form(one.name) == form(path.name)] if parent.is_dir() else []
    return same[0] if len(same) == 1 else path


def form(name: str) -> str:
    """Return the name in NFC, the Unicode form in which names that look equal are equal."""
    return unicodedata.normalize("NFC", name)


def regular(path: Path) -> Path:
    """Return the same path if it is a file of reasonable size, not an endless pipe or device. Raises OSError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file but a folder, a pipe or a device", str(path))
    if found.st_size > LARGEST:
        raise OSError(errno.EINVAL, f"the file is too large: {found.st_size / 1e9:.1f} GB", str(path))
    return path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
