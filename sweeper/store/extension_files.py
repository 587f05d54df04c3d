"""The copies of extension files that a study and each of its final models keep."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainers import extensions
from trainers.extensions import ExtensionFile
from trainers.support import files


def keep(given: Sequence[ExtensionFile], folder: Path) -> None:
    """Copy these files to `folder` unless identical copies are there already."""
    for one in given:
        copy = folder / one.name
        if not copy.is_file() or copy.read_bytes() != one.text:
            with files.atomic_write(copy) as file:
                file.write(one.text)


def carry(wanted: Mapping[str, str], source: Path, folder: Path) -> None:
    """Copy the files that a recipe was made with, by name and SHA-256, from one folder of copies to another."""
    if wanted:
        keep(extensions.stored(source, wanted), folder)
