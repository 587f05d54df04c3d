"""Small disks for tests, and how to fill them: a tmpfs, or a btrfs with a quota, where one may be mounted."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

BLOCK = 4096
FIRST = "0/256"  # the quota group of the first folder that is made on a btrfs


@contextmanager
def small(place: Path, megabytes: int) -> Iterator[Path]:
    """A disk of that size at `place`, while it lasts; the test is skipped where nothing may be mounted."""
    place.mkdir()
    _ask("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def rationed(place: Path) -> Iterator[tuple[Path, Callable[[str], object]]]:
    """A folder on a disk of its own at `place`, and what sets its quota: to a size such as 1M, or to none."""
    place.mkdir()
    image, folder = place.with_suffix(".img"), place / "ours"
    with image.open("wb") as file:
        file.truncate(256 * 2**20)
    _ask("mkfs.btrfs", "-q", str(image))
    _ask("mount", "-o", "loop", str(image), str(place))
    try:
        _ask("btrfs", "quota", "enable", str(place))
        _ask("btrfs", "subvolume", "create", str(folder))
        limit = ["btrfs", "qgroup", "limit"]  # asked of the folder itself, more would count against its quota
        yield folder, lambda size: subprocess.run([*limit, size, FIRST, str(place)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _ask(*words: str) -> None:
    """Have a disk made; the test is skipped where that is not possible."""
    try:
        asked = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"there is no {words[0]} here: such disks are not tried")
    if asked.returncode:
        pytest.skip(f"no disk may be made here: {asked.stderr.strip()}")


def fill(place: Path, *, leaving: int = 0) -> Path:
    """Fill the disk up to `leaving` bytes, in one go; returns the file whose removal makes room again."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        most = max(BLOCK, shutil.disk_usage(place).free * 9 // 10)
        os.posix_fallocate(file.fileno(), 0, most)
        file.seek(0, os.SEEK_END)
        with suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        file.truncate(max(0, file.tell() - leaving))
    return filler
