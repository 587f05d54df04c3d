"""One reader for both text layouts, FashionDataset and DeepFashion's Anno_fine, distinguished by their columns."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.data.images import EXTENSIONS, UNREAD
from trainers.data.table import MISSING, SPLITS, Box, Category, Row, Split, spans
from trainers.data_config import DataConfig
from trainers.support.errors import Fault
from trainers.support.files import regular
from trainers.support.text import did_you_mean

FASHION = {
    ("floral", "graphic", "striped", "embroidered", "pleated", "solid", "lattice"): "texture",
    ("long_sleeve", "short_sleeve", "sleeveless"): "sleeve",
    ("maxi_length", "mini_length", "no_dress"): "length",
    ("crew_neckline", "v_neckline", "square_neckline", "no_neckline"): "neckline",
    ("denim", "chiffon", "cotton", "leather", "faux", "knit"): "material",
    ("tight", "loose", "conventional"): "fit",
}  # the well-known 26 attributes have categories with names; others are category1, category2, ...
ATTRIBUTES = "list_attr_cloth.txt"
FLAGS = {"0": 0, "1": 1}
WHOLE_NUMBERS = re.compile(r"-?[0-9]{1,9}(\s+-?[0-9]{1,9})*")
Line = tuple[str, str]  # where ("split/train.txt:3"), text


@dataclass(frozen=True)
class Places:
    """The locations of a text layout: the label files in `labels`, images relative to `images`."""

    root: Path
    labels: Path
    images: Path

    @classmethod
    def challenge(cls, root: Path) -> "Places":
        return cls(root, root / "split", root)

    @classmethod
    def deepfashion(cls, root: Path) -> "Places":
        return cls(root, root / "Anno_fine", root / "Img" if (root / "Img").is_dir() else root)

    def lines(self, name: str, faults: list[Fault]) -> list[Line]:
        """Return the lines of a label file with their locations, without BOM, CRLF and blank last lines."""
        path = self.labels / name
        where = path.relative_to(self.root).as_posix()
        try:
            text = regular(path).read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            optional = "; to do without boxes, set data.crop: none" if name.endswith("_bbox.txt") else ""
            help = f"the layout expects its label files in {self.labels.name}/{optional}"
            faults.append(Fault(where, "no such file", help))
            return []
        except OSError as error:
            faults.append(Fault(where, f"cannot be read: {error.strerror}"))
            return []
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            faults.append(Fault(f"{where}:{line}", "not UTF-8 text", "save the file as UTF-8"))
            return []
        lines = [(f"{where}:{k}", line.strip()) for k, line in enumerate(text.rstrip().split("\n"), 1)]
        blank = [place for place, line in lines if not line and len(lines) > 1]
        faults += [Fault(place, "blank line", "lines must match across files: remove it") for place in blank]
        return [(place, line) for place, line in lines if line]


@dataclass(frozen=True)
class Attributes:
    """The categories of list_attr_cloth.txt, and which of its columns each takes in one-hot flags.

    `sure` is True if that file has no fault; otherwise the meaning of labels is unclear, and they are not judged.
    `missing` holds the words for an unknown answer, in lower case; with `none_set_missing`, no flag means the same.
    """

    categories: tuple[Category, ...]
    columns: tuple[tuple[int, ...], ...]
    sure: bool = True
    missing: frozenset[str] = frozenset()
    none_set_missing: bool = False

    @property
    def flags(self) -> int:
        return sum(map(len, self.columns))


def attributes(places: Places, config: DataConfig, faults: list[Fault]) -> Attributes:
    """Read list_attr_cloth.txt: an optional count, an optional header, then a name and a category number per line."""
    before = len(faults)
    lines = places.lines(ATTRIBUTES, faults)
    count = lines.pop(0) if lines and re.fullmatch("[0-9]{1,9}", lines[0][1]) else None
    if lines and lines[0][1].lower().startswith("attribute_name"):
        lines.pop(0)
    types: dict[int, list[tuple[int, str]]] = {}
    for column, (where, text) in enumerate(lines):
        name, _, number = text.rpartition(" ")
        name = name.strip()
        if not name or not re.fullmatch("[0-9]{1,9}", number):
            faults.append(Fault(where, f"{text!r} is not an attribute name followed by a category number"))
            continue
        if any(name == known for _, known in types.get(int(number), [])):
            faults.append(Fault(where, f"attribute {name!r} appears twice in category {number}"))
        types.setdefault(int(number), []).append((column, name))
    if count and int(count[1]) != len(lines):
        faults.append(Fault(count[0], f"declares {count[1]} attributes, but {len(lines)} follow"))
    groups = [types[number] for number in sorted(types)]
    classes = [tuple(name for _, name in group) for group in groups]
    titles = [FASHION.get(names, f"category{n}") for n, names in enumerate(classes, 1)]
    for name in set(config.several) - set(titles) if titles else ():
        help = did_you_mean(name, titles) or f"the categories are {', '.join(titles)}"
        faults.append(Fault("data.multi", f"no category {name!r} in {lines[0][0].rpartition(':')[0]}", help))
    return Attributes(
        tuple(Category(name, names, name in config.several) for name, names in zip(titles, classes, strict=True)),
        tuple(tuple(column for column, _ in group) for group in groups),
        sure=len(faults) == before,
        missing=config.spellings,
        none_set_missing=config.none_set_missing,
    )


def absent(rows: Sequence[Row], found: Attributes, where: str) -> Iterator[Fault]:
    """Yield a note on the missing answers in train and val, by category."""
    labels = [row.labels for row in rows if row.split in ("train", "val")]
    counts = {
        span.category.name: sum(one is None or MISSING in one[span.labels] for one in labels)
        for span in spans(found.categories)
    }
    if any(counts.values()):
        each = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        yield Fault(where, f"missing answers among the {len(labels):,} rows of train and val: {each}")


def rows(places: Places, found: Attributes, *, boxes: bool, faults: list[Fault]) -> list[Row]:
    """Return every image of the splits that exist; labels of test are optional, boxes are read only if wanted."""
    listed: list[Row] = []
    for split in SPLITS:
        if split == "train" or (places.labels / f"{split}.txt").exists():
            listed += _split(places, found, split, boxes, faults)
    return listed


def _split(places: Places, found: Attributes, split: Split, boxes: bool, faults: list[Fault]) -> list[Row]:
    paths = places.lines(f"{split}.txt", faults)
    if paths and _is_header(paths[0][1]):
        paths.pop(0)
    labels: list[tuple[int, ...] | None] = [None] * len(paths)
    if split != "test" or (places.labels / "test_attr.txt").exists():
        lines = _numbers(places, f"{split}_attr.txt", len(paths), faults)
        labels[: len(lines)] = _labels(lines, found, faults) if found.sure else []
    corners: list[Box | None] = [None] * len(paths)
    if boxes:
        lines = _numbers(places, f"{split}_bbox.txt", len(paths), faults)
        corners[: len(lines)] = [_box(line, faults) for line in lines]
    rows = zip(paths, corners, labels, strict=False)
    return [Row(path, split, box, label, where) for (where, path), box, label in rows]


def _labels(lines: list[Line], found: Attributes, faults: list[Fault]) -> list[tuple[int, ...] | None]:
    onehot = 2 * sum(len(text.split()) == found.flags for _, text in lines) > len(lines)
    several = [category.name for category in found.categories if category.multi]
    if several and lines and not onehot:
        what = f"one index per category, but {several[0]!r} is in data.multi"
        faults.append(Fault(lines[0][0].rpartition(":")[0], what, f"write {found.flags} flags 0/1 per line"))
        return []
    return [(_flags if onehot else _indices)(line, found, faults) for line in lines]


def _is_header(line: str) -> bool:
    return "/" not in line and not line.lower().endswith((*EXTENSIONS, *UNREAD))


def _numbers(places: Places, name: str, wanted: int, faults: list[Fault]) -> list[Line]:
    """Return the lines of a file that goes with a list of images, without its header."""
    before = len(faults)
    lines = places.lines(name, faults)
    if lines and all(re.match(r"[A-Za-z_]", word) for word in lines[0][1].split()):
        lines.pop(0)
    if len(lines) != wanted and len(faults) == before:
        where = lines[min(wanted, len(lines) - 1)][0] if lines else (places.labels.name + "/" + name)
        images = name.replace("_attr", "").replace("_bbox", "")
        found = "1 line" if len(lines) == 1 else f"{len(lines)} lines"
        faults.append(Fault(where, f"{found} for the {wanted} images of {images}", "write one line per image"))
    return lines


def _whole(line: Line, faults: list[Fault]) -> list[int] | None:
    where, text = line
    if WHOLE_NUMBERS.fullmatch(text):
        return [int(word) for word in text.split()]
    wrong = next(word for word in text.split() if not WHOLE_NUMBERS.fullmatch(word))
    faults.append(Fault(where, f"{wrong!r} is not a whole number"))
    return None


def _columns(words: list[str]) -> str:
    return f"{len(words)} column{'s' * (len(words) != 1)}"


def _no_commas(line: Line) -> str:
    """Return what to add to the help if blanks were meant."""
    return ", separated by spaces" if re.search("[,;]", line[1]) else ""


def _indices(line: Line, found: Attributes, faults: list[Fault]) -> tuple[int, ...] | None:
    where, words = line[0], line[1].split()
    if len(words) != len(found.categories):
        hint = f"one index per category, or {found.flags} flags 0/1{_no_commas(line)}"
        faults.append(Fault(where, f"{_columns(words)}, but there are {len(found.categories)} categories", hint))
        return None
    known = [word.lower() not in found.missing for word in words]
    plain = " ".join(word if sure else str(MISSING) for word, sure in zip(words, known, strict=True))
    if (values := _whole((where, plain), faults)) is None:
        return None
    for category, value, sure in zip(found.categories, values, known, strict=True):
        if sure and not 0 <= value < len(category.classes):
            last = len(category.classes) - 1
            unknown = "; if -1 means unknown, write data: {missing: [-1]}" * (value == MISSING)
            faults.append(
                Fault(
                    where,
                    f"{value} is not a class of {category.name}",
                    f"classes are numbered from 0 to {last}{unknown}",
                )
            )
    return tuple(values) if any(known) else None


def _flags(line: Line, found: Attributes, faults: list[Fault]) -> tuple[int, ...] | None:
    where, words = line[0], line[1].split()
    if len(words) != found.flags:
        hint = f"one flag 0/1 for each, as in the other lines of this file{_no_commas(line)}"
        faults.append(Fault(where, f"{_columns(words)}, but there are {found.flags} attributes", hint))
        return None
    flags = [MISSING if word.lower() in found.missing else FLAGS.get(word) for word in words]
    if None in flags:
        faults.append(Fault(where, f"{words[flags.index(None)]!r} is not a flag", "flags are 0 or 1"))
        return None
    labels: list[int] = []
    for category, columns in zip(found.categories, found.columns, strict=True):
        own = [flag for column in columns if (flag := flags[column]) is not None]
        if found.none_set_missing and not any(own):
            own = [MISSING] * len(own)
        labels += own if category.multi else [_chosen(where, category, own, faults)]
    return tuple(labels) if any(label != MISSING for label in labels) else None


def _chosen(where: str, category: Category, flags: list[int], faults: list[Fault]) -> int:
    """Return the one class whose flag is set, or MISSING if none is and some are unknown."""
    if flags.count(1) == 1:
        return flags.index(1)
    if flags.count(1) or MISSING not in flags:
        hint = "every image has exactly one class in each category"
        hint += "; if that means unknown, write data: {missing: [none_set]}" * (not flags.count(1))
        hint += f"; if several may be set, write data: {{multi: [{category.name}]}}" * (flags.count(1) > 1)
        faults.append(Fault(where, f"{flags.count(1)} flags are set in {category.name}", hint))
    return MISSING


def _box(line: Line, faults: list[Fault]) -> Box | None:
    """Convert 1-based inclusive corners to a box as in Pillow."""
    where, words = line[0], line[1].split()
    if len(words) != 4:
        hint = f"four numbers per line{_no_commas(line)}"
        faults.append(Fault(where, f"{_columns(words)}, but a box is x1 y1 x2 y2", hint))
        return None
    if (corners := _whole(line, faults)) is None:
        return None
    x1, y1, x2, y2 = corners
    if not (1 <= x1 <= x2 and 1 <= y1 <= y2):
        hint = "x1 <= x2 and y1 <= y2, counted from 1"
        faults.append(Fault(where, f"{line[1]!r} is not a box", hint))
        return None
    return x1 - 1, y1 - 1, x2, y2
