"""`sweep clean`: finds what may go from mlruns/, says how much that is, and removes it."""

import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper import text
from sweeper.errors import StudyHeld
from sweeper.store import lock, paths, records, retention, study_file, trial_index
from sweeper.store import studies as study_folders
from sweeper.store.paths import RunFolder, StudyFolder
from trainers.data import cache
from trainers.support.failpoints import failpoint

HOUR = 3600.0  # seconds without use after which decoded images may go
CHECKPOINTS = "checkpoints of trials that have ended, beyond the best {keep}"
CONFIRMS = "checkpoints of confirmations that have ended"
FINALS = "training state of finals, whose model.safetensors is there"
LEFT = "what kills left half written"
IMAGES = "decoded images that no study here uses"


@dataclass(frozen=True)
class Item:
    """A file, or a folder of the cache, that may go."""

    kind: str
    path: Path
    size: int


@dataclass(frozen=True)
class Found:
    """What may go, and the studies that were passed over because they are held."""

    items: tuple[Item, ...]
    held: tuple[StudyFolder, ...] = ()

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)


def find(name: str | None, keep: int | None = None) -> Found:
    """What may go of the study called `name`, or of all studies and the cache. Touches nothing.

    Of each study the best `keep` trials keep their checkpoints; as many as its file says when left out, or else one.
    Raises StudyHeld where the named study is at work.
    """
    studies = [study_folders.find(name)] if name else study_folders.studies()
    held = tuple(study for study in studies if lock.holder(study.lock))
    if name and held:
        raise _at_work(held[0])
    items = [item for study in studies if study not in held for item in of_study(study, keep)]
    return Found((*items, *(() if name else of_cache())), held)


def _at_work(study: StudyFolder) -> StudyHeld:
    return StudyHeld(
        f"{lock.holder(study.lock)} is running this study",
        where=str(study.root),
        help="wait for it, or stop it; a sweep that waits for room on its disk lets go of the study",
    )


# ------------------------------------------------------------------------------------------ a study
def of_study(study: StudyFolder, keep: int | None) -> Iterator[Item]:
    """What may go of one study."""
    if not _inside(study.root):
        return
    limit = keep or (study_file.read(study) or {}).get("keep_checkpoints") or 1
    ended = [entry.result for entry in trial_index.read(study).values()]
    for result in retention.outside_best(ended, limit):
        yield from _files(CHECKPOINTS.format(keep=limit), study.trial(result.number).checkpoints)
    done = {result.number for result in ended}
    for number, folder in records.folders(study):
        yield from _files(LEFT, records.leftovers(folder.root, ended=number in done))
    for run in _runs(study.confirmations):
        yield from _files(CONFIRMS, run.checkpoints if run.result.exists() else ())
    for run in _runs(study.finals):
        yield from _files(FINALS, (run.checkpoint,) if run.result.exists() and run.model.exists() else ())
    for run in (*_runs(study.confirmations), *_runs(study.finals)):
        yield from _files(LEFT, records.leftovers(run.root, ended=run.result.exists()))
    yield from _files(LEFT, records.leftovers(study.root))


def _runs(folder: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(folder.glob("*")) if path.is_dir()]


def _files(kind: str, found: Iterable[Path]) -> Iterator[Item]:
    """Those that are there, are files and no links, and lie in mlruns/."""
    for path in found:
        try:
            about = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(about.st_mode) and _inside(path.parent):
            yield Item(kind, path, about.st_blocks * 512)


def _inside(folder: Path) -> bool:
    """Whether a folder is where it seems to be: behind a link out of mlruns/ nothing is ours."""
    return folder.resolve().is_relative_to(paths.home().resolve())


# ------------------------------------------------------------------------------------------ the cache
def of_cache() -> Iterator[Item]:
    """What may go of the cache: no study of this folder uses it, and nobody has looked at it for a while."""
    root = paths.cache()
    if not root.is_dir() or not _inside(root):
        return
    used = {asked for study in study_folders.studies() if (asked := _images(study))}
    for place in cache.places(root):
        if (place.root, place.size) not in used and _old(place.folder, HOUR):
            yield Item(IMAGES, place.folder, _total(place.folder))
    unfinished = (path for path in sorted(root.glob(".*.building")) if _old(path, HOUR) and not path.is_symlink())
    yield from (Item(LEFT, path, _total(path)) for path in unfinished)


def _images(study: StudyFolder) -> tuple[str, int] | None:
    """The data set of a study and the side of its decoded images."""
    data = study_file.identity(study).get("data", {})
    return (str(Path(data["root"]).resolve()), data["size"]) if data.get("root") and data.get("size") else None


def _old(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def _total(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------ removing
def remove(name: str | None, keep: int | None = None) -> int:
    """Remove what may go; returns the bytes that are free by it.

    Each study is held meanwhile, and is looked at again first: nothing goes that became the best since. A kill in
    between leaves a study that lacks some of what it can do without.
    """
    studies = [study_folders.find(name)] if name else study_folders.studies()
    freed = 0
    for study in studies:
        freed += _held(study, lambda study: _unlink(of_study(study, keep)), named=name is not None)
    if not name and paths.cache().is_dir():
        with cache.alone(paths.cache()):
            freed += _unlink(of_cache())
    return freed


def _held(study: StudyFolder, work: Callable[[StudyFolder], int], *, named: bool) -> int:
    """Do `work` while the study is ours; nothing where it is at work, unless it was named."""
    try:
        held = lock.acquire(study.lock)
    except StudyHeld:
        if named:
            raise
        return 0
    try:
        return work(study)
    finally:
        held.release()


def _unlink(items: Iterable[Item]) -> int:
    freed = 0
    for item in list(items):
        if item.path.is_dir():
            cache.discard(item.path)
        else:
            item.path.unlink(missing_ok=True)
        failpoint(f"cleaned {item.path.name}")
        freed += item.size
    return freed


# ------------------------------------------------------------------------------------------ telling
def lines(found: Found) -> Iterator[str]:
    """A line a kind, the sum, and what was passed over."""
    for kind, files, size in _kinds(found.items):
        yield f"{text.format_bytes(size):>9}  {kind} ({files})"
    yield f"{text.format_bytes(found.size):>9}  in all" if found.items else "nothing here may go"
    for study in found.held:
        yield f"{study.name} is at work ({lock.holder(study.lock)}): left as it is"


def _kinds(items: Sequence[Item]) -> list[tuple[str, int, int]]:
    names = dict.fromkeys(item.kind for item in items)
    by_kind = ((name, [item.size for item in items if item.kind == name]) for name in names)
    return [(name, len(sizes), sum(sizes)) for name, sizes in by_kind]


def document(found: Found, freed: int | None) -> dict[str, Any]:
    """The same for --json; `freed` bytes, or None where nothing was removed."""
    kinds = [{"kind": kind, "files": files, "bytes": size} for kind, files, size in _kinds(found.items)]
    held = [study.name for study in found.held]
    return {"schema_version": 1, "found": kinds, "bytes": found.size, "held": held, "freed": freed}
