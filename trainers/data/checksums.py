"""Digests of large files, block by block: which of a folder's files are no longer as they were written."""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from trainers.data.images import Progress, cores
from trainers.support.files import write_text

NAME = "digests.json"
BLOCK = 4 * 2**20  # bytes; 6 GB/s on two cores from memory, more than with blocks of a quarter or four times as many
_NOTED: TypeAdapter[dict[str, list[int]]] = TypeAdapter(dict[str, list[int]])


def write(folder: Path, names: Sequence[str]) -> None:
    """Note in `folder` what these files hold now."""
    write_text(folder / NAME, json.dumps({name: list(_blocks(folder / name)) for name in names}) + "\n")


def wrong(folder: Path, names: Sequence[str], progress: Progress | None = None) -> str:
    """What is wrong with these files since `write`, in words; nothing where every byte is as it was.

    `progress` is called with MB read and MB in all, in whole blocks.
    """
    try:
        noted = _NOTED.validate_json((folder / NAME).read_bytes())
    except FileNotFoundError:
        return f"there is no {NAME}"
    except ValidationError:
        return f"{NAME} is damaged"
    total, done = sum(map(len, noted.values())) * BLOCK, 0
    for name in names:
        try:
            for found, meant in zip_longest(_blocks(folder / name), noted.get(name, [])):
                if found != meant:
                    return f"{name} is not as it was written"
                done += BLOCK
                if progress:
                    progress(done // 10**6, total // 10**6)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def _blocks(path: Path) -> Iterator[int]:
    """The CRC-32 of each block, worked out on all cores. Not through a map: there, a bad sector kills the process."""
    with path.open("rb") as file:

        def one(start: int) -> int:
            return zlib.crc32(os.pread(file.fileno(), BLOCK, start))

        pool = ThreadPoolExecutor(cores(), thread_name_prefix="digests")
        try:
            yield from pool.map(one, range(0, os.fstat(file.fileno()).st_size, BLOCK))
        finally:
            pool.shutdown(cancel_futures=True)
