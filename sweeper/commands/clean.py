"""`sweep clean`: find the files in mlruns/ that can be removed, report their size, and remove them."""

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

HOUR = 3600.0  # seconds without use after which decoded images can be removed
CHECKPOINTS = "checkpoints of finished trials, beyond the best {keep}"
CONFIRMS = "checkpoints of finished confirmations"
FINALS = "training state of final models that have a model.safetensors"
LEFT = "incomplete files left by killed processes"
IMAGES = "decoded images that no study here uses"


@dataclass(frozen=True)
class Item:
    """A file, or a folder of the cache, that can be removed."""

    kind: str
    path: Path
    size: int


@dataclass(frozen=True)
class Found:
    """The removable items, and the studies that were skipped because another process holds them."""

    items: tuple[Item, ...]
    held: tuple[StudyFolder, ...] = ()

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)


def find(name: str | None, keep: int | None = None) -> Found:
    """Find what can be removed from the study `name`, or from all studies and the cache, without removing anything.

    In each study the best `keep` trials keep their checkpoints; the default is the number in the study's file, or 1.
    Raises StudyHeld if the named study is running.
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
        help="wait for it to finish, or stop it; a sweep that is waiting for disk space releases its study",
    )


# ------------------------------------------------------------------------------------------ a study
def of_study(study: StudyFolder, keep: int | None) -> Iterator[Item]:
    """Yield what can be removed from one study."""
    if not _inside(study.root):
        return
    limit = keep or (study_file.read(study) or {}).get("keep_checkpoints") or 1
    ended = [entry.result for entry in trial_index.read(study).values()]
    for result in retention.outside_best(ended, limit):
        able = retention.removable(study.trial(result.number), completed=result.state == "COMPLETE")
        yield from _files(CHECKPOINTS.format(keep=limit), able)
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
    """Yield the paths that exist, are regular files rather than links, and lie in mlruns/."""
    for path in found:
        try:
            about = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(about.st_mode) and _inside(path.parent):
            yield Item(kind, path, about.st_blocks * 512)


def _inside(folder: Path) -> bool:
    """True if a folder really lies in mlruns/: nothing behind a link that leads out of it is ours."""
    return folder.resolve().is_relative_to(paths.home().resolve())


# ------------------------------------------------------------------------------------------ the cache
def of_cache() -> Iterator[Item]:
    """Yield what can be removed from the cache: no study in this folder uses it, and it was not used recently."""
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
    """Return the data set of a study and the side of its decoded images in pixels."""
    data = study_file.identity(study).get("data", {})
    return (str(Path(data["root"]).resolve()), data["size"]) if data.get("root") and data.get("size") else None


def _old(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def _total(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------ removing
def remove(name: str | None, keep: int | None = None) -> int:
    """Remove what can be removed and return the number of bytes freed.

    Each study is locked meanwhile and searched again first, so that a trial that has become the best keeps its files.
    A study stays usable if the process is killed halfway: only files that it can do without are missing.
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
    """Do `work` while holding the study; if another process holds it, skip it, or raise StudyHeld if it was named."""
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


# ------------------------------------------------------------------------------------------ output
def lines(found: Found) -> Iterator[str]:
    """Yield one line per kind, the total, and the studies that were skipped."""
    for kind, files, size in _kinds(found.items):
        yield f"{text.format_bytes(size):>9}  {kind} ({files})"
    yield f"{text.format_bytes(found.size):>9}  in total" if found.items else "nothing to remove"
    for study in found.held:
        yield f"{study.name} is running ({lock.holder(study.lock)}): skipped"


def _kinds(items: Sequence[Item]) -> list[tuple[str, int, int]]:
    names = dict.fromkeys(item.kind for item in items)
    by_kind = ((name, [item.size for item in items if item.kind == name]) for name in names)
    return [(name, len(sizes), sum(sizes)) for name, sizes in by_kind]


def document(found: Found, freed: int | None) -> dict[str, Any]:
    """Return the same for --json; `freed` is in bytes, or None if nothing was removed."""
    kinds = [{"kind": kind, "files": files, "bytes": size} for kind, files, size in _kinds(found.items)]
    held = [study.name for study in found.held]
    return {"schema_version": 1, "found": kinds, "bytes": found.size, "held": held, "freed": freed}
