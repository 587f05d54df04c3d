"""Small disks for tests, and how to fill them: a tmpfs, where one may be mounted."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

BLOCK = 4096


@contextmanager
def small(place: Path, megabytes: int) -> Iterator[Path]:
    """A disk of that size at `place`, while it lasts; the test is skipped where nothing may be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    try:
        asked = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here: small disks are not tried")
    if asked.returncode:
        pytest.skip(f"no disk may be mounted here: {asked.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


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
