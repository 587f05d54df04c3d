"""Hold out val if a data set names none, divide a data set into folds, and judge its splits."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from trainers.data.table import FITTED, Category, Remarks, Row, Table, classes_of, counted, label_matrix, spans
from trainers.data_config import DataConfig
from trainers.support.errors import Fault

FEWEST = 10  # images that val needs to rank trials at all, if the data set has enough
ENOUGH = 5 * FEWEST  # images in total: with fewer, only a small val is possible
FEW = 50  # images of val below which a note says how little a score means
FEW_CLASSES = 10  # classes that val has and train lacks, listed one by one
OFF = 0.25  # deviation, relative to the requested share, that whole groups may cause without a note
UNIT = 1_000_000  # parts per image, as whole numbers, so that no rounding differs between machines
TRIED = 10_000  # exchanges compared for the best one if there are few groups
LARGE = np.iinfo(np.int64).max


def hold_out(rows: Sequence[Row], categories: Sequence[Category], *, share: float, seed: int) -> list[Row]:
    """Return the same rows in the same order, with `share` of the labelled train rows, in whole groups, moved to val.

    The split is stratified over all categories at once: val gets its share to the nearest image, every class gets
    about its share, and one image of each class stays in train, which takes precedence if the three conflict. With
    groups, val and each class get their share as nearly as the groups allow. (The iterative algorithm of Sechidis et
    al. 2011 rounds each class separately: it holds out none of a class of two images.) A missing answer counts
    nowhere. A hash of seed and path, or group, alone decides which images move: neither order nor platform matters.
    """
    train = [row for row in rows if row.split == "train" and row.labels is not None]
    if not train:
        return list(rows)
    train.sort(key=lambda row: _place(row, seed))
    sizes = Counter(map(_name, train))  # in the order of the rows
    names = list(sizes)
    units = _units(label_matrix(train, categories), np.array(list(sizes.values())), categories)
    val = {names[at] for at in _chosen(units, share)}
    return [replace(row, split="val") if row.split == "train" and _name(row) in val else row for row in rows]


def folds(rows: Sequence[Row], categories: Sequence[Category], *, count: int, seed: int) -> list[int | None]:
    """Return the number of each row's fold, from 1; None for test, and for rows without a known answer.

    Fold after fold is held out from the remaining rows of train and val, as in `hold_out`: each image and each whole
    group is in one fold, and each fold has about its share of every class. Order and platform do not matter.
    """
    pool = sorted((row for row in rows if _is_judged(row)), key=lambda row: _place(row, seed))
    sizes = Counter(map(_name, pool))
    names, left = list(sizes), np.arange(len(sizes))
    units = _units(label_matrix(pool, categories), np.array(list(sizes.values())), categories)
    found = dict.fromkeys(names, count)
    for number in range(1, count):
        if not len(left):
            break
        chosen = left[_chosen(units.only(left), 1 / (count - number + 1))]
        found.update(dict.fromkeys((names[at] for at in chosen), number))
        left = np.setdiff1d(left, chosen)
    return [found[_name(row)] if _is_judged(row) else None for row in rows]


def _is_judged(row: Row) -> bool:
    """True if a cross-validation judges trials on this row."""
    return row.split in FITTED and row.labels is not None


def with_val(table: Table, numbers: Sequence[int | None], *chosen: int) -> Table:
    """Return the table, in its order, with the folds `chosen` as val and the rest of train and val as train."""
    pairs = zip(table.rows, numbers, strict=True)
    rows = (_moved(row, "val" if number in chosen else "train") for row, number in pairs)
    return replace(table, rows=tuple(rows))


def pooled(table: Table) -> Table:
    """Return the table, in its order, with all folds of a cross-validation together as val."""
    rows = (_moved(row, "val" if row.labels is not None else "train") for row in table.rows)
    return replace(table, rows=tuple(rows))


def judged_on(table: Table, folds: int | None) -> Table:
    """Return the table whose val has the rows that a trial's predictions are for, in that order."""
    return pooled(table) if folds else table


def _moved(row: Row, split: str) -> Row:
    """Return the row in another split, unless it is in test."""
    return row if row.split in (split, "test") else replace(row, split=split)


def training_sizes(table: Table, folds: int | None) -> tuple[int, int]:
    """Return how many images a training of a trial learns from and is judged on, approximately if there are folds."""
    train, val = len(table.split("train")), len(table.split("val"))
    if not folds:
        return train, val
    held = round((train + val) / folds)
    return train + val - held, held


def _name(row: Row) -> tuple[str, bool]:
    """Return the unit that goes to one split as a whole: a group, or an image that is in none."""
    return (row.path, False) if row.group is None else (row.group, True)


def _place(row: Row, seed: int) -> bytes:
    """Return the sort key of a row: units are ordered by their hash, the images of a unit by their paths."""
    name, grouped = _name(row)
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return b"%s%d%s" % (digest, grouped, row.path.encode() if grouped else b"")


def _units(labels: np.ndarray, sizes: np.ndarray, categories: Sequence[Category]) -> "_Units":
    """Return the units of `sizes` images each, [U], whose `labels` [N, L] are in order of the units."""
    nothing = sum(len(category.classes) for category in categories)
    codes = np.empty(labels.T.shape, dtype=np.int32)
    for span in spans(categories):
        answers, first = labels[:, span.labels].T, span.classes.start
        if span.category.multi:
            classes = np.arange(first, span.classes.stop, dtype=np.int32)[:, None]
            codes[span.labels] = np.where(answers > 0, classes, nothing)
        else:
            codes[span.labels] = np.where(answers < 0, nothing, answers + first)
    return _Units(codes, np.cumsum(sizes) - sizes, sizes, nothing)


@dataclass(frozen=True)
class _Units:
    """Units that go to one split as a whole, [U]: each has `sizes` images, whose `codes` [L, N] start at `starts`.

    A code is the number of a class, different in each category; `nothing`, the highest code, means no class.
    """

    codes: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    nothing: int

    @property
    def are_images(self) -> bool:
        """True if each unit has one image."""
        return bool(self.sizes.max() == 1)

    def images(self, units: np.ndarray) -> np.ndarray:
        """Return the positions of the units' images, unit by unit."""
        sizes = self.sizes[units]
        ends = np.cumsum(sizes)
        places: np.ndarray = np.arange(sizes.sum()) + np.repeat(self.starts[units] - ends + sizes, sizes)
        return places

    def only(self, units: np.ndarray) -> "_Units":
        """Return these units, in this order."""
        sizes = self.sizes[units]
        return _Units(self.codes[:, self.images(units)], np.cumsum(sizes) - sizes, sizes, self.nothing)

    def counts(self, units: np.ndarray) -> np.ndarray:
        """Return how many of their images have each class, [nothing + 1]; the last, which is no class, is 0."""
        found = np.bincount(self.codes[:, self.images(units)].ravel(), minlength=self.nothing + 1)
        found[-1] = 0
        return found

    def shown(self) -> "_Shown":
        """Return which units show each class, and how often."""
        owner = np.repeat(np.arange(len(self.starts)), self.sizes)
        known = self.codes < self.nothing
        pairs, times = np.unique((self.codes * len(self.starts) + owner)[known], return_counts=True)
        firsts = np.searchsorted(pairs, np.arange(self.nothing + 1) * len(self.starts))
        return _Shown(pairs % len(self.starts), times, firsts)


@dataclass(frozen=True)
class _Shown:
    """The units that show class c are `units[firsts[c] : firsts[c + 1]]`; `times` there holds how often."""

    units: np.ndarray
    times: np.ndarray
    firsts: np.ndarray

    def sums(self, values: np.ndarray, count: int) -> np.ndarray:
        """Return the sum of `values`, one per class, over the classes of the images of each of `count` units."""
        found = np.zeros(count, dtype=np.int64)
        for code in np.flatnonzero(values[: len(self.firsts) - 1]):
            those = slice(self.firsts[code], self.firsts[code + 1])
            found[self.units[those]] += values[code] * self.times[those]  # each unit occurs only once
        return found


def _chosen(units: _Units, share: float) -> np.ndarray:
    """Return the units that go to val.

    The selection starts with evenly spaced images in the order of labels, and is improved from there.
    """
    free = np.setdiff1d(np.arange(len(units.starts)), _kept(units))
    wanted = min(max(1, math.floor(share * units.codes.shape[1] + 0.5)), int(units.sizes[free].sum()))
    if not wanted:
        return free
    free = free[np.lexsort(units.codes[::-1, units.starts[free]])]
    picked = _every(units.sizes[free], wanted)
    above = UNIT * units.counts(free[picked])
    above -= np.rint(UNIT * share * units.counts(np.arange(len(units.starts)))).astype(np.int64)
    _improve(units.only(free), picked, above, wanted)
    found: np.ndarray = free[picked]
    return found


def _every(sizes: np.ndarray, wanted: int) -> np.ndarray:
    """Return which units to pick, [U]: evenly spread, with about `wanted` images in total; at least one unit."""
    picked, owed, images = np.zeros(len(sizes), dtype=bool), 0, int(sizes.sum())
    for at, size in enumerate(sizes.tolist()):
        owed += wanted * size
        if 2 * owed > images * size:
            picked[at] = True
            owed -= images * size
    picked[sizes.argmin()] |= not picked.any()
    return picked


def _improve(units: _Units, picked: np.ndarray, above: np.ndarray, wanted: int) -> None:
    """Improve `picked` [U] in place; `above` is how far each class is above its share, in parts of an image.

    The unit whose classes are furthest above their share is exchanged for the one whose classes lack most, as long as
    the sum of the squared deviations shrinks. A single group may also come or go, for the sake of the classes or of
    the number of images, which weighs as much as all classes together.
    """
    shown, sizes = units.shown(), units.sizes
    weight = max(1, round(int(shown.times.sum()) / units.codes.shape[1]))

    @lru_cache(1)  # of the leaving unit: needed to compare its replacements, and again for the exchange
    def shared(unit: int) -> np.ndarray:
        """Return how much the classes and the number of images of each unit agree with this one's."""
        found: np.ndarray = shown.sums(units.counts(np.array([unit])), len(sizes)) + weight * sizes[unit] * sizes
        return UNIT * found

    own = UNIT * (np.bincount(shown.units, shown.times**2, len(sizes)).astype(np.int64) + weight * sizes**2)
    score = shown.sums(above, len(sizes)) + weight * UNIT * (int(sizes[picked].sum()) - wanted) * sizes
    while moves := _moves(picked, score, own, shared, groups=not units.are_images):
        for unit in moves:
            score += -shared(unit) if picked[unit] else shared(unit)
            picked[unit] ^= True


def _moves(
    picked: np.ndarray, score: np.ndarray, own: np.ndarray, shared: Callable[[int], np.ndarray], *, groups: bool
) -> list[int]:
    """Return the units that change sides next, none if that improves nothing; `groups` may move one by one."""
    cost = own + np.where(picked, -2, 2) * score
    found = [(0, list[int]())]
    leaving = np.where(picked, cost, LARGE)
    tried = min(1 + TRIED // len(picked), int(picked.sum())) if groups else 1
    outs = leaving.argsort(kind="stable")[:tried].tolist() if tried > 1 else [int(leaving.argmin())]
    for out in outs if not picked.all() else ():
        after = own + 2 * (score - shared(out))
        new = int(np.where(picked, LARGE, after).argmin())
        found.append((int(cost[out] + after[new]), [out, new]))
    if groups:
        staying = picked & (picked.sum() == 1)
        alone = np.where(staying, LARGE, cost)
        found.append((int(alone.min()), [int(alone.argmin())]))
    return min(found)[1]


def _kept(units: _Units) -> list[int]:
    """Return a small number of units that show every class; the rarest class chooses first."""
    flat = units.codes.T.ravel()
    known = np.flatnonzero(flat < units.nothing)
    classes, first, sizes = np.unique(flat[known], return_index=True, return_counts=True)
    owners = np.searchsorted(units.starts, known[first] // len(units.codes), side="right") - 1
    kept: dict[int, None] = {}
    shown: set[int] = set()
    for at in np.lexsort((classes, sizes)):
        if classes[at] not in shown:
            unit = int(owners[at])
            kept[unit] = None
            shown.update(np.flatnonzero(units.counts(np.array([unit]))).tolist())
    return list(kept)


# ----------------------------------------------------------------------------------------------- judging
def judge_folds(table: Table, config: DataConfig, count: int) -> list[Fault]:
    """Return what speaks against a cross-validation, or the first few reasons.

    They are classes that not every fold can show, or else a class that training lacks when a fold is held out.
    """
    rare = sorted((units, k, c) for (k, c), units in _shown_by(table).items() if units < count)
    if rare:
        return [_too_rare(table, config, count, rare[0][0], *one) for one in rare[:FEW_CLASSES]]
    numbers = folds(table.rows, table.categories, count=count, seed=config.split_seed)
    for number in range(1, count + 1):
        parted = with_val(table, numbers, number).rows
        if absent := list(_untrained(parted, table.categories, config)):
            what = f"fold {number} of {count} would take every image of a class: {absent[0].what}"
            return [Fault(absent[0].where, what, "another data.split_seed divides the images differently")]
    return []


def most_folds(table: Table) -> int:
    """Return the largest number of folds that can each show every class."""
    return min(_shown_by(table).values(), default=0)


def _shown_by(table: Table) -> Counter[tuple[int, int]]:
    """Count the images, or groups, of train and val that show each class, by the positions of category and class."""
    names: dict[tuple[int, int], set[tuple[str, bool]]] = {}
    for row in filter(_is_judged, table.rows):
        for k, span in enumerate(spans(table.categories)):
            for c in classes_of((row.labels or ())[span.labels], span.category):
                names.setdefault((k, c), set()).add(_name(row))
    return Counter({place: len(units) for place, units in names.items()})


def _too_rare(table: Table, config: DataConfig, count: int, most: int, units: int, k: int, c: int) -> Fault:
    category = table.categories[k]
    grouped = any(row.group is not None for row in table.rows)
    kind = "group" if grouped else "image"
    what = f"{category.classes[c]!r} of {category.name} has {units} {kind}{'s' * (units != 1)} in train and val,"
    what += f" but search.folds needs one in each of {count} folds"
    help = f"write search: {{folds: {most}}}" if most > 1 else "leave out search.folds, so that val judges trials"
    if config.is_tabular:
        help += f"; or data: {{min_count: {count}, rare: ignore}} leaves out its answers"
    return Fault(config.root, what, help)


def judge(
    rows: Sequence[Row], categories: Sequence[Category], config: DataConfig, remarks: Remarks, *, held_out: bool
) -> None:
    """Report what speaks against the splits, with figures.

    Faults: a group in several splits, a val that is empty or, if it was held out, too small to rank trials, and
    classes of val that train lacks. Notes: a val of few images, or one that groups keep from the requested size.
    """
    remarks.faults.extend(_parted(rows))
    remarks.faults.extend(_untrained(rows, categories, config))
    val = sum(row.split == "val" for row in rows)
    both = sum(row.split == "train" for row in rows) + val
    groups = Counter(row.group for row in rows if row.group is not None and row.split != "test")
    if not val:
        remarks.faults.append(_nothing_held_out(len(groups), config.root))
    elif held_out and val < FEWEST and both >= ENOUGH:
        what = f"val would have {val} of {both} images: one image is {100 / val:.0f} points of accuracy"
        help = f"raise data.val_share until val has {FEWEST} or more (each class keeps one image in train); then"
        help += " search: {folds: 5} judges trials on all images"
        remarks.faults.append(Fault(config.root, what, help))
    elif val < FEW:
        error = f"accuracies have a standard error of up to {0.5 / math.sqrt(val):.2f}"
        what = f"val has {val} image{'s' * (val > 1)}, so {error}"
        help = "trials that differ by less are tied; a larger val, or search: {folds: 5}, separates them"
        remarks.notes.append(Fault(config.root, what, help))
    if held_out and val and groups and abs(val / both - config.val_share) > OFF * config.val_share:
        most = max(groups.values())
        what = f"val has {val / both:.0%} of the images instead of the requested {config.val_share:.0%}"
        help = f"groups are never split: there are {len(groups)}, the largest with {most} image{'s' * (most > 1)}"
        remarks.notes.append(Fault(config.root, what, help))


def _nothing_held_out(groups: int, root: str) -> Fault:
    if groups:
        what = f"no group can be held out for val: each of the {groups} is the only one with some class"
        return Fault(root, what, "a class needs images from two groups, one for train and one for val")
    help = "a class needs two images, one for train and one for val"
    return Fault(root, "no image can be held out for val: every image is the only one of its class", help)


def _parted(rows: Sequence[Row]) -> Iterator[Fault]:
    """Yield one fault for all groups that are in several splits."""
    first: dict[str, Row] = {}
    parted: dict[str, Row] = {}
    for row in rows:
        if row.group is not None and first.setdefault(row.group, row).split != row.split:
            parted.setdefault(row.group, row)
    if not parted:
        return
    name, row = next(iter(parted.items()))
    images = sum(row.group in parted for row in rows)
    what = f"{name!r} is in {first[name].split} and {row.split};"
    what += f" {len(parted)} of {len(first)} groups are in several splits, with {images} images"
    help = "give each group one split, or leave out data.group; without a split column, val is held out by group"
    yield Fault(row.where, what, help)


def _untrained(rows: Sequence[Row], categories: Sequence[Category], config: DataConfig) -> Iterator[Fault]:
    """Yield a fault for each class that val has and train lacks; of many, for the first ones and their number."""
    trained, judged = (counted((row for row in rows if row.split == split), categories) for split in ("train", "val"))
    missing = [place for place in sorted(judged) if place not in trained]
    help = "a mistake? move some of them to train, or remove them from val"
    if config.is_tabular:
        help = "a mistake? move some of them to train; or data: {min_count: 1, rare: ignore} leaves out their answers"
    for k, c in missing[:FEW_CLASSES]:
        span, count = spans(categories)[k], judged[k, c]
        where = next(
            row.where
            for row in rows
            if row.split == "val" and row.labels and c in classes_of(row.labels[span.labels], span.category)
        )
        what = f"{span.category.classes[c]!r} of {span.category.name} has {count} image{'s' * (count > 1)} in val"
        yield Fault(where, f"{what} and none in train", help)
    if len(missing) > FEW_CLASSES:
        yield Fault(
            config.root,
            f"{len(missing)} classes have images in val and none in train",
            "the first are listed above",
        )
