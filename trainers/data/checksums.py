"""Checksums of large files, block by block, to find the files of a folder that are no longer as written."""

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
BLOCK = 4 * 2**20  # bytes; 6 GB/s on two cores from memory, faster than with blocks of 1 or 16 MiB
_NOTED: TypeAdapter[dict[str, list[int]]] = TypeAdapter(dict[str, list[int]])


def write(folder: Path, names: Sequence[str]) -> None:
    """Record the checksums of these files in `folder`."""
    write_text(folder / NAME, json.dumps({name: list(_blocks(folder / name)) for name in names}) + "\n")


def wrong(folder: Path, names: Sequence[str], progress: Progress | None = None) -> str:
    """Describe what has gone wrong with these files since `write`; empty if every byte is as it was.

    `progress` is called with the MB read and the MB in total, in whole blocks.
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
                    return f"{name} has changed since it was written"
                done += BLOCK
                if progress:
                    progress(done // 10**6, total // 10**6)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def _blocks(path: Path) -> Iterator[int]:
    """Yield the CRC-32 of each block, computed on all cores. A memory map would let a bad sector kill the process."""
    with path.open("rb") as file:

        def one(start: int) -> int:
            return zlib.crc32(os.pread(file.fileno(), BLOCK, start))

        pool = ThreadPoolExecutor(cores(), thread_name_prefix="digests")
        try:
            yield from pool.map(one, range(0, os.fstat(file.fileno()).st_size, BLOCK))
        finally:
            pool.shutdown(cancel_futures=True)
