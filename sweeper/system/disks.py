"""Disks: the kind of a file system, and the free space on it."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from trainers.support import files

MOUNTS = Path("/proc/mounts")
NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "ceph",
    "glusterfs",
    "gpfs",
    "beegfs",
    "afs",
    "9p",
    "fuse.sshfs",
    "fuse.s3fs",
)
"""Prefixes of the names of file systems that processes on several machines may write to."""
COPYING = ("btrfs",)
"""Copy-on-write file systems: changing mapped memory on a full disk kills the process (SIGBUS)."""


def network(folder: Path, mounts: str | None = None) -> str:
    """Return the kind of the network file system that `folder` is on, or an empty string; `mounts` replaces
    /proc/mounts.
    """
    kind = _kind(folder.resolve(), mounts)
    return kind if kind.startswith(NETWORK) else ""


def journal(folder: Path, mounts: str | None = None) -> str:
    """Return SQLite's journal mode for `folder`: WAL, or DELETE where the memory-mapped index of a WAL is unsafe."""
    return "DELETE" if _kind(folder.resolve(), mounts).startswith((*NETWORK, *COPYING)) else "WAL"


def _kind(folder: Path, mounts: str | None) -> str:
    """Return the kind of the nearest mount above `folder`; the last of several at one place hides the others."""
    if mounts is None:
        mounts = MOUNTS.read_text(errors="replace") if MOUNTS.exists() else ""
    best, found = -1, ""
    for line in mounts.splitlines():
        _, place, kind, *_ = [*line.split(" "), "", "", ""]
        depth = len(Path(_plain(place)).parts)
        if folder.is_relative_to(_plain(place)) and depth >= best:
            best, found = depth, kind
    return found


def _plain(text: str) -> str:
    """Return a path with octal escapes, such as those of spaces, resolved."""
    for octal in ("040", "011", "012", "134"):
        text = text.replace(f"\\{octal}", chr(int(octal, 8)))
    return text


def words(folder: Path, kind: str) -> str:
    """Return the warning for a folder on a network file system."""
    slower = "its databases work without a write-ahead log, which is unsafe there"
    return f"{folder} is on a network file system ({kind}): {slower}; SWEEP_HOME on a local disk is faster and safer"


def free(folder: Path) -> int:
    """Return the bytes still free where `folder` is, or will be."""
    return shutil.disk_usage(_there(folder)).free


def takes(folder: Path, need: int, piece: int = 0) -> bool:
    """True if the disk of `folder` takes `need` more bytes, in files of `piece` bytes, or in one.

    They are allocated and released, since the figure for free bytes ignores quotas and limits on the size of a file.
    """
    if free(folder) < need:
        return False
    if not hasattr(os, "posix_fallocate"):
        return True
    try:
        with ExitStack() as opened:
            for size in _pieces(need, piece or need):
                file = opened.enter_context(tempfile.TemporaryFile(dir=_there(folder)))
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if files.full(error):
            return False
        raise
    return True


def _pieces(need: int, piece: int) -> list[int]:
    whole, rest = divmod(need, max(1, piece))
    return [piece] * whole + ([rest] if rest else [])


def _there(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
