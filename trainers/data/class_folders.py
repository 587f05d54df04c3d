"""The layout `folder`: images in one folder per class, which may lie below one folder per split."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainers.data import validation
from trainers.data.class_names import class_order
from trainers.data.folder_tree import Look, Tree, by_extension
from trainers.data.table import SPLIT_NAMES, SPLITS, Category, Found, Remarks, Row
from trainers.data_config import DataConfig
from trainers.support.errors import Fault
from trainers.support.files import form
from trainers.support.text import did_you_mean, on_one_line

AROUND = {"", "set", "data", "dataset", "image", "images", "img", "imgs", "split", "folder"}
SHAPE = "layout folder expects <class>/*.jpg or <split>/<class>/*.jpg"


@dataclass(frozen=True)
class _Top:
    """The folder of a split, or the root: the images directly in it, and those of each folder below."""

    path: Path
    split: str
    own: Look
    below: dict[Path, Look]

    @property
    def others(self) -> Counter[str]:
        return sum((look.others for look in self.below.values()), self.own.others)


def read(config: DataConfig, root: Path, remarks: Remarks) -> Found:
    """Read every image below `root`; report what is wrong, and what was left out, in `remarks`."""
    validation.boxes(config, remarks.faults)
    tree = Tree(root)
    tops = _tops(tree, remarks)
    others = sum((top.others for top in tops), Counter[str]())
    classes = _classes(root, tops, remarks)
    rows = [row for top in tops for row in _rows(top, classes, remarks)] if classes else []
    fault = _fault(tree, tops, classes, others) if tops else None
    if fault:
        remarks.faults.append(fault)
    elif classes:
        remarks.notes.extend(_deeper(root, tops))
    tree.remark(remarks, others)
    return (root, (Category("class", classes),), rows) if tops and not fault else (root, (), [])


def is_likely(root: Path) -> bool:
    """True if at least two folders below `root` or its splits hold images; a single one may belong to a list."""
    tree = Tree(root)
    top = tree.folders(root)
    inner = [below for path in top if split_of(path.name) for below in tree.folders(path)]
    classes = [path for path in (*top, *inner) if not split_of(path.name)]
    return sum(bool(tree.look(path, deep=False).images) for path in classes) > 1


def split_of(name: str) -> str | None:
    """Return the split that a folder is named after: Training, test_set, Validation-Images, trainset."""
    named = [word for word in _words(name) if word not in AROUND]
    return SPLIT_NAMES.get(named[0]) if len(named) == 1 else None


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """Return the folders named after splits, ignoring shared words and numbers: seg_train and seg_test, 1_train."""
    names = list(names)
    plain = {name: split for name in names if (split := split_of(name))}
    words = {name: {word for word in _words(name) if not word.isdigit()} for name in names}
    named = {name: inside for name, inside in words.items() if inside & SPLIT_NAMES.keys()}
    if plain or len(named) < 2:
        return plain
    shared = set.intersection(*named.values())
    bare = {name: split for name, inside in named.items() if (split := split_of(" ".join(inside - shared)))}
    return bare if "train" in bare.values() else {}


def _words(name: str) -> list[str]:
    return [re.sub("(set|data|images?)$", "", word) for word in re.split(r"[\W_]+", name.lower())]


def _tops(tree: Tree, remarks: Remarks) -> list[_Top]:
    """Return the folders of the splits, or the root alone; empty if the splits cannot be identified."""
    found = tree.folders(tree.root)
    named = splits_of(path.name for path in found)
    splits = {path: named[path.name] for path in found if path.name in named}
    if not splits:
        return [_top(tree, tree.root, "train")]
    tops = [_top(tree, _unwrapped(tree, path, split), split) for path, split in splits.items()]
    others = [path for path in found if path not in splits and tree.look(path).images]
    if fault := _unlike_splits(tree.root, splits, tops):
        remarks.faults.append(fault)
        return []
    for path in others:
        hint = did_you_mean(path.name, SPLIT_NAMES) or "beside train, only val and test are allowed"
        remarks.faults.append(Fault(on_one_line(path.name), "neither train, val nor test", hint))
    odd = [(top.path.relative_to(tree.root).as_posix(), top.split) for top in tops]
    if any(name not in SPLITS for name, _ in odd):
        remarks.read_as.append("splits " + ", ".join(f"{name!r} as {split}" for name, split in odd))
    return tops


def _top(tree: Tree, path: Path, split: str) -> _Top:
    below = {folder: tree.look(folder) for folder in tree.folders(path)}
    return _Top(path, split, tree.look(path, deep=False), below)


def _unwrapped(tree: Tree, path: Path, split: str) -> Path:
    """Return the inner folder of training_set/training_set/<class> or train/images/<class>."""
    inner = tree.folders(path)
    if len(inner) != 1 or tree.look(path, deep=False).images:
        return path
    name = inner[0].name
    alike = name == path.name or split_of(name) == split or (set(_words(name)) <= AROUND and tree.folders(inner[0]))
    return _unwrapped(tree, inner[0], split) if alike else path


def _unlike_splits(root: Path, paths: dict[Path, str], tops: list[_Top]) -> Fault | None:
    """Return the fault of folders that are named like splits but cannot be read as splits."""
    names = " and ".join(repr(path.name) for path in paths)
    splits = [top.split for top in tops]
    if "train" not in splits:
        help = f"put the class folders into {str(root / 'train')!r}; if this is a class, rename it"
        return Fault(str(root), f"named like a split: {names}; but there is no folder 'train' beside it", help)
    if twice := [split for split, times in Counter(splits).items() if times > 1]:
        names = " and ".join(repr(path.name) for path, split in paths.items() if split == twice[0])
        return Fault(str(root), f"more than one folder is named like {twice[0]}: {names}", "keep one of them")
    train = tops[splits.index("train")]
    if train.own.images and not any(look.images for look in train.below.values()):
        what = f"the folder {train.path.name!r} is named like a split, but holds images and no class folders"
        help = f"{SHAPE}; if it is a class, rename it; for labels in a CSV file, use layout: table"
        return Fault(str(root), what, help)
    return None


def _classes(root: Path, tops: list[_Top], remarks: Remarks) -> tuple[str, ...]:
    """Return the names of the folders that hold images, in NFC; those in test count only if there are no others."""
    known = [top for top in tops if top.split != "test"] or tops
    names = {_name(folder) for top in known for folder, look in top.below.items() if look.images}
    forms: dict[str, set[str]] = defaultdict(set)
    for top in tops:
        for folder, look in top.below.items():
            forms[_name(folder)].add(folder.name)
            where = on_one_line(folder.relative_to(root).as_posix())
            if names and look.unread and not look.images:
                remarks.faults.append(Fault(where, f"holds no readable image: {by_extension(look.others)}"))
            elif names and not look.images and _name(folder) not in names:
                remarks.notes.append(Fault(where, "holds no image, so it is not a class"))
    for name, spellings in forms.items():
        if len(spellings) > 1:
            what = f"{len(spellings)} spellings of the class {name!r} differ only in their Unicode form"
            remarks.notes.append(Fault(on_one_line(name), what, "they are read as one class"))
    return class_order(names)


def _name(folder: Path) -> str:
    return form(folder.name)


def _rows(top: _Top, classes: tuple[str, ...], remarks: Remarks) -> Iterator[Row]:
    """Yield the images of a split; the class is the first folder. In test, another folder or none means unknown."""
    code = {name: k for k, name in enumerate(classes)}
    found = [(None, top.own), *((code.get(_name(folder)), look) for folder, look in top.below.items())]
    for label, look in found:
        for where in look.images:
            if label is None and top.split != "test":
                remarks.faults.append(Fault(on_one_line(where), "an image outside any class folder"))
            else:
                yield Row(where, top.split, None, None if label is None else (label,), on_one_line(where))


def _fault(tree: Tree, tops: list[_Top], classes: tuple[str, ...], others: Counter[str]) -> Fault | None:
    """Return what is wrong with the data set, if one line explains it better than one line per image."""
    root, top = str(tree.root), tops[0]
    own = sum(len(one.own.images) for one in tops)
    if not classes and not own:
        return Fault(root, "no readable image", by_extension(others) or SHAPE)
    if not classes:
        return Fault(
            root, f"{own} images but no class folder", f"{SHAPE}; for labels in a CSV file, use layout: table"
        )
    if top.path != tree.root or own:
        return None
    filled = [folder for folder, look in top.below.items() if look.images]
    if len(filled) == 1 and (inner := _inner(tree, filled[0])) is not None:
        return Fault(root, f"one folder {filled[0].name!r}, with more folders below it", f"write data.root: {inner}")
    places = [image.split("/") for look in top.below.values() for image in look.images]
    inside = {split_of(name) for name in {place[1] if len(place) > 2 else "" for place in places}}
    if None not in inside and {"train"} < inside:
        return Fault(root, f"splits are below the classes, as in {filled[0].name!r}", SHAPE)
    return None


def _deeper(root: Path, tops: list[_Top]) -> Iterator[Fault]:
    """Yield a note on folders below class folders: they may be the real classes, or hold masks."""
    looks = [(folder.relative_to(root).as_posix() + "/", look) for top in tops for folder, look in top.below.items()]
    deep = [image for folder, look in looks for image in look.images if "/" in image[len(folder) :]]
    if deep:
        what = f"{len(deep)} image{'s' * (len(deep) != 1)} in folders below classes, the first {deep[0]!r}"
        yield Fault(str(root), what, "each belongs to the folder directly below the root or the split")


def _inner(tree: Tree, path: Path) -> Path | None:
    """Return the folder below `path` meant as the root: the first with several folders and no image of its own."""
    below = tree.folders(path)
    if tree.look(path, deep=False).images or not below:
        return None
    return _inner(tree, below[0]) if len(below) == 1 else path
