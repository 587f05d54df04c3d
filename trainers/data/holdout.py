"""A seeded, stratified split for data sets that name none; the same on every machine."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from trainers.data.rows import Row


def hold_out(rows: Sequence[Row], *, share: float, seed: int) -> list[Row]:
    """The same rows in the same order, `share` of the labelled train rows renamed to val.

    Classes are served from the rarest to the most frequent, over all categories (Sechidis et al. 2011, for one
    answer a category), so each class has about its share in val, and one image at least stays in train.
    Which images go is decided by a hash of seed and path alone: neither order nor platform matters.
    """
    train = {row.path: row.labels for row in rows if row.split == "train" and row.labels is not None}
    val = _choose(train, share, seed)
    return [replace(row, split="val") if row.split == "train" and row.path in val else row for row in rows]


def _choose(labels: dict[str, tuple[int, ...]], share: float, seed: int) -> set[str]:
    order = sorted(labels, key=lambda path: hashlib.sha256(f"{seed}\0{path}".encode()).digest())
    members: dict[tuple[int, int], list[str]] = {}
    for path in order:
        for question in enumerate(labels[path]):
            members.setdefault(question, []).append(path)
    val: set[str] = set()
    settled: set[str] = set()
    for paths in _rarest_first(members):
        wanted = min(len(paths) - 1, math.floor(share * len(paths) + 0.5))
        missing = max(0, wanted - sum(path in val for path in paths))
        val.update([path for path in paths if path not in settled][:missing])
        settled.update(paths)
    return val or set(order[: len(order) > 1])


def _rarest_first(members: dict[tuple[int, int], list[str]]) -> Iterable[list[str]]:
    sizes = Counter({question: len(paths) for question, paths in members.items()})
    return (members[question] for question in sorted(members, key=lambda q: (sizes[q], q)))
