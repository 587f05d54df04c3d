"""The data set of a study: looked at whole, given a size, and decoded, before anything trains on it."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sweeper.store import paths, study_file
from sweeper.store.paths import StudyFolder
from sweeper.terminal import output
from sweeper.terminal.output import counting

if TYPE_CHECKING:
    from trainers.config import DataConfig
    from trainers.data.check import Findings
    from trainers.data.layouts import Table
    from trainers.data.summary import Summary

IN_SHORT = 3  # kinds of notes in one line


def checked(data: "DataConfig") -> "Findings":
    """The data set, every label and image of which was looked at once. Raises DataError with every fault."""
    from trainers.data import check

    with counting("checking images") as count:
        return check.ensure(data, paths.cache(), count)


def understood(data: "Summary", source: str) -> Iterator[str]:
    """What a sweep on the file `source` makes of its data set: the figures, and all notes in one line."""
    yield from data.lines()
    if data.notes:
        more = f"; and {len(data.notes) - IN_SHORT} more" if len(data.notes) > IN_SHORT else ""
        yield f"note: {'; '.join(data.notes[:IN_SHORT])}{more} (details: sweep data check {shlex.quote(source)})"


def sized(data: "DataConfig", image_size: int, table: "Table", folder: StudyFolder) -> "DataConfig":
    """The data with the side of its cached images, if none was written: the study's own, or what the space asks."""
    before = study_file.read(folder)
    if before:
        return data.model_copy(update={"size": before["identity"]["data"]["size"]})
    from trainers.data import cache

    return data.model_copy(update={"size": cache.side(image_size, table)})


def decode(table: "Table", data: "DataConfig") -> None:
    """Decode the images, unless that was done before and they are still what they were."""
    from trainers.data import cache

    with counting("reading the decoded images, MB") as count:
        damage = cache.mend(table, data, paths.cache(), progress=count)
    if damage:
        output.talk(f"the decoded images are damaged and are made anew: {damage}")
    with counting("decoding images") as count:
        cache.open_cache(table, data, paths.cache(), progress=count)
