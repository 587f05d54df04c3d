"""Holding out val where a data set names none, parting into folds, and judging the splits of any."""

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

FEWEST = 10  # images of val that can rank trials at all, where the data set has enough for them
ENOUGH = 5 * FEWEST  # images in all: with fewer, a small val is all that can be had
FEW = 50  # images of val below which it is said how little a score says
FEW_CLASSES = 10  # that val has and train lacks, which are named one by one
OFF = 0.25  # of the share asked for, by which that of whole groups may be off without a note
UNIT = 1_000_000  # one image, so that parts of images are whole numbers: no rounding differs between machines
TRIED = 10_000  # exchanges of few groups that are looked at for the best one
LARGE = np.iinfo(np.int64).max


def hold_out(rows: Sequence[Row], categories: Sequence[Category], *, share: float, seed: int) -> list[Row]:
    """The same rows in the same order, `share` of the labelled train rows renamed to val, whole groups at a time.

    Stratified over all categories at once: val has its share to the nearest image, every class about its share, and
    one image of each class stays in train, which comes first where the three cannot be had together. Of groups, val
    and each class have their share as nearly as the groups allow. (The iterative algorithm of Sechidis et al. 2011
    rounds each class for itself: of classes of two images it holds none out.) A missing answer counts nowhere.
    Which images go is decided by a hash of seed and path, or group, alone: neither order nor platform matters.
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
    """The number of each row's fold, from 1; None for test, and where no answer is known.

    Fold after fold is held out of what is left of train and val, as `hold_out` does it: each image is in one fold,
    whole groups are, and each fold has about its share of every class. Order and platform do not matter.
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
    """Whether a cross-validation judges trials on it."""
    return row.split in FITTED and row.labels is not None


def with_val(table: Table, numbers: Sequence[int | None], *chosen: int) -> Table:
    """The same rows in the same order, with the folds `chosen` as val and the rest of train and val as train."""
    pairs = zip(table.rows, numbers, strict=True)
    rows = (_moved(row, "val" if number in chosen else "train") for row, number in pairs)
    return replace(table, rows=tuple(rows))


def pooled(table: Table) -> Table:
    """The same rows in the same order, with all folds of a cross-validation together as val."""
    rows = (_moved(row, "val" if row.labels is not None else "train") for row in table.rows)
    return replace(table, rows=tuple(rows))


def judged_on(table: Table, folds: int | None) -> Table:
    """The table in which val is what the predictions of a trial are of: those rows, in that order."""
    return pooled(table) if folds else table


def _moved(row: Row, split: str) -> Row:
    """The row in another split, if it is none of test."""
    return row if row.split in (split, "test") else replace(row, split=split)


def training_sizes(table: Table, folds: int | None) -> tuple[int, int]:
    """How many images a training of a trial learns from, and how many it is judged on; of several folds about."""
    train, val = len(table.split("train")), len(table.split("val"))
    if not folds:
        return train, val
    held = round((train + val) / folds)
    return train + val - held, held


def _name(row: Row) -> tuple[str, bool]:
    """What goes to one split as a whole: a group, or an image that is in none."""
    return (row.path, False) if row.group is None else (row.group, True)


def _place(row: Row, seed: int) -> bytes:
    """By what rows are put into their order: units by their hash, the images of one by their paths."""
    name, grouped = _name(row)
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return b"%s%d%s" % (digest, grouped, row.path.encode() if grouped else b"")


def _units(labels: np.ndarray, sizes: np.ndarray, categories: Sequence[Category]) -> "_Units":
    """The units of so many images, [U], whose `labels` [N, L] stand one unit behind the other."""
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
    """What goes to one split as a whole, [U]: `sizes` images of `codes` [L, N] from the places `starts` on.

    A code is the number of a class, another one in each category; `nothing`, the highest, is none.
    """

    codes: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    nothing: int

    @property
    def are_images(self) -> bool:
        """Each has one image."""
        return bool(self.sizes.max() == 1)

    def images(self, units: np.ndarray) -> np.ndarray:
        """The places of their images, one unit behind the other."""
        sizes = self.sizes[units]
        ends = np.cumsum(sizes)
        places: np.ndarray = np.arange(sizes.sum()) + np.repeat(self.starts[units] - ends + sizes, sizes)
        return places

    def only(self, units: np.ndarray) -> "_Units":
        """These units, in this order."""
        sizes = self.sizes[units]
        return _Units(self.codes[:, self.images(units)], np.cumsum(sizes) - sizes, sizes, self.nothing)

    def counts(self, units: np.ndarray) -> np.ndarray:
        """How many of their images have each class, [nothing + 1]; the last, which is no class, has none."""
        found = np.bincount(self.codes[:, self.images(units)].ravel(), minlength=self.nothing + 1)
        found[-1] = 0
        return found

    def shown(self) -> "_Shown":
        """Which of them show each class, and how often."""
        owner = np.repeat(np.arange(len(self.starts)), self.sizes)
        known = self.codes < self.nothing
        pairs, times = np.unique((self.codes * len(self.starts) + owner)[known], return_counts=True)
        firsts = np.searchsorted(pairs, np.arange(self.nothing + 1) * len(self.starts))
        return _Shown(pairs % len(self.starts), times, firsts)


@dataclass(frozen=True)
class _Shown:
    """The units that show class c are `units[firsts[c] : firsts[c + 1]]`, as often as `times` says there."""

    units: np.ndarray
    times: np.ndarray
    firsts: np.ndarray

    def sums(self, values: np.ndarray, count: int) -> np.ndarray:
        """The sum of `values`, one for each class, over the classes of the images of each of `count` units."""
        found = np.zeros(count, dtype=np.int64)
        for code in np.flatnonzero(values[: len(self.firsts) - 1]):
            those = slice(self.firsts[code], self.firsts[code + 1])
            found[self.units[those]] += values[code] * self.times[those]  # each unit is there once
        return found


def _chosen(units: _Units, share: float) -> np.ndarray:
    """Which units go to val.

    They begin as those of every so many-th image in the order of labels, and are improved from there.
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
    """Which units to pick so that of all their images about `wanted` are, evenly spread; at least one, [U]."""
    picked, owed, images = np.zeros(len(sizes), dtype=bool), 0, int(sizes.sum())
    for at, size in enumerate(sizes.tolist()):
        owed += wanted * size
        if 2 * owed > images * size:
            picked[at] = True
            owed -= images * size
    picked[sizes.argmin()] |= not picked.any()
    return picked


def _improve(units: _Units, picked: np.ndarray, above: np.ndarray, wanted: int) -> None:
    """Improve `picked` [U] in place; `above` is what each class has over its share, in parts of an image.

    The unit whose classes have most above their share is exchanged for the one whose classes lack most, as long as
    the squares of what is above and below grow fewer. Of groups one alone may come or go, too, for the sake of
    classes or of the number of images, which weighs as much as all classes do.
    """
    shown, sizes = units.shown(), units.sizes
    weight = max(1, round(int(shown.times.sum()) / units.codes.shape[1]))

    @lru_cache(1)  # of the unit that goes, for those that may come and then for good
    def shared(unit: int) -> np.ndarray:
        """How much the classes and the number of images of each unit agree with this one's."""
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
    """The units that change sides next, none where that makes nothing better; `groups` may move one by one."""
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
    """Units that show every class, few of them: the rarest class chooses first."""
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
    """What speaks against a cross-validation: a class that not every fold can show, and one that a fold lacks in
    training; the first few.
    """
    rare = sorted((units, k, c) for (k, c), units in _shown_by(table).items() if units < count)
    if rare:
        return [_too_rare(table, config, count, rare[0][0], *one) for one in rare[:FEW_CLASSES]]
    numbers = folds(table.rows, table.categories, count=count, seed=config.split_seed)
    for number in range(1, count + 1):
        parted = with_val(table, numbers, number).rows
        if absent := list(_untrained(parted, table.categories, config)):
            what = f"fold {number} of {count} would have all there are: {absent[0].what}"
            return [Fault(absent[0].where, what, "another data.split_seed parts the images otherwise")]
    return []


def most_folds(table: Table) -> int:
    """So many folds can each show every class."""
    return min(_shown_by(table).values(), default=0)


def _shown_by(table: Table) -> Counter[tuple[int, int]]:
    """How many images, or groups, show each class of train and val, by the places of its category and of it."""
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
    what += f" and search.folds asks for {count} parts with one each"
    help = f"write search: {{folds: {most}}}" if most > 1 else "leave search.folds out, and val judges"
    if config.is_tabular:
        help += f"; or data: {{min_count: {count}, rare: ignore}} leaves its answers out"
    return Fault(config.root, what, help)


def judge(
    rows: Sequence[Row], categories: Sequence[Category], config: DataConfig, remarks: Remarks, *, held_out: bool
) -> None:
    """What speaks against the splits, with figures.

    Faults: a group in several splits, a val that is empty or, where it was held out, too small to rank trials, and
    classes of val that train lacks. Notes: a val of few images, or one that groups keep from the size asked for.
    """
    remarks.faults.extend(_parted(rows))
    remarks.faults.extend(_untrained(rows, categories, config))
    val = sum(row.split == "val" for row in rows)
    both = sum(row.split == "train" for row in rows) + val
    groups = Counter(row.group for row in rows if row.group is not None and row.split != "test")
    if not val:
        remarks.faults.append(_nothing_held_out(len(groups), config.root))
    elif held_out and val < FEWEST and both >= ENOUGH:
        what = f"val would be {val} of {both} images: one image is {100 / val:.0f} points of accuracy"
        help = f"raise data.val_share until val has {FEWEST} or more; a class keeps one image in train. With that,"
        help += " search: {folds: 5} judges trials on all images"
        remarks.faults.append(Fault(config.root, what, help))
    elif val < FEW:
        error = f"accuracies have a standard error of up to {0.5 / math.sqrt(val):.2f}"
        what = f"val has {val} image{'s' * (val > 1)}, so {error}"
        help = "trials that differ by less are tied; a larger val tells them apart, or search: {folds: 5}"
        remarks.notes.append(Fault(config.root, what, help))
    if held_out and val and groups and abs(val / both - config.val_share) > OFF * config.val_share:
        most = max(groups.values())
        what = f"val has {val / both:.0%} of the images, and {config.val_share:.0%} were asked for"
        help = f"no group is split: there are {len(groups)}, the largest of {most} image{'s' * (most > 1)}"
        remarks.notes.append(Fault(config.root, what, help))


def _nothing_held_out(groups: int, root: str) -> Fault:
    if groups:
        what = f"no group can be held out for val: of {groups} each is the only one of a class"
        return Fault(root, what, "a class needs images of two groups, one for train and one for val")
    help = "a class needs two images, one for train and one for val"
    return Fault(root, "no image can be held out for val: every image is the only one of a class", help)


def _parted(rows: Sequence[Row]) -> Iterator[Fault]:
    """One fault for all groups that are in several splits."""
    first: dict[str, Row] = {}
    parted: dict[str, Row] = {}
    for row in rows:
        if row.group is not None and first.setdefault(row.group, row).split != row.split:
            parted.setdefault(row.group, row)
    if not parted:
        return
    name, row = next(iter(parted.items()))
    images = sum(row.group in parted for row in rows)
    what = f"{name!r} is in {first[name].split} and {row.split}, as"
    what += f" {len(parted)} of {len(first)} groups are in several splits, with {images} images"
    help = "give each group one split; or leave out data.group; without a column of splits, val is held out by group"
    yield Fault(row.where, what, help)


def _untrained(rows: Sequence[Row], categories: Sequence[Category], config: DataConfig) -> Iterator[Fault]:
    """Each class that val has and train lacks; of many, the first ones and how many they are."""
    trained, judged = (counted((row for row in rows if row.split == split), categories) for split in ("train", "val"))
    missing = [place for place in sorted(judged) if place not in trained]
    help = "a slip? move some of them to train, or take them out of val"
    if config.is_tabular:
        help = "a slip? move some of them to train; or data: {min_count: 1, rare: ignore} leaves their answers out"
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
            config.root, f"{len(missing)} classes have images in val and none in train", "the first are named above"
        )
