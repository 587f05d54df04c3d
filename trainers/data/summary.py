"""The summary of a data set: splits, categories, classes with their images, and what else is worth knowing."""

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from trainers.data.table import MISSING, SPLITS, Table, counted, label_matrix, spans
from trainers.data_config import DataConfig
from trainers.epoch import Part

WIDTH = 100  # characters of the line about one category
SHOWN = 20  # categories that get a line of their own
LONG = 30  # characters to which the column of names grows at most
UPRIGHT = ((1, 4), (1, 3), (2, 5), (1, 2), (9, 16), (2, 3), (3, 4), (4, 5))
ASPECTS = (*UPRIGHT, (1, 1), *((height, width) for width, height in reversed(UPRIGHT)))


class ClassSummary(Part):
    """One class, and how many labelled images of it each split has."""

    name: str
    images: dict[str, int] = Field(description="images by split; test counts only if it has labels")


class CategorySummary(Part):
    """One category, with its classes in label order."""

    name: str
    classes: tuple[ClassSummary, ...]
    multi: bool = Field(False, description="an image may have several of the classes")
    missing: float = Field(0.0, description="share of unknown answers in train and val")
    answers: float | None = Field(None, description="multi only: classes per image of train and val, on average")
    empty: float | None = Field(None, description="multi only: share of images of train and val without a class")


class PixelSummary(Part):
    """The width and height of the images, or of their boxes, in pixels."""

    median: tuple[int, int] = Field(description="median width and median height")
    smallest: tuple[int, int] = Field(description="the image with the fewest pixels")
    largest: tuple[int, int] = Field(description="the image with the most pixels")
    aspect: tuple[int, int] = Field(description="the most common ratio of width to height, such as 3 to 4")
    aspect_share: float = Field(description="share of images closest to that ratio")

    def words(self) -> str:
        """Describe the sizes in words."""
        median, smallest, largest = (f"{w:,} x {h:,}" for w, h in (self.median, self.smallest, self.largest))
        if smallest == largest:
            return f"{median} each"
        aspect = f"about {self.aspect[0]}:{self.aspect[1]} in {self.aspect_share:.0%}"
        return f"median {median}, from {smallest} to {largest}, {aspect}"


class Summary(Part):
    """A data set in figures."""

    layout: str
    root: str
    images: dict[str, int] = Field(description="images of each split")
    held_out: bool = Field(description="val was held out from train, because the data set names none")
    groups: int | None = Field(
        None, description="number of groups, none of them in two splits; none if images are in no groups"
    )
    categories: tuple[CategorySummary, ...]
    pixels: PixelSummary | None = Field(
        None, description="of the images, or of their boxes; none if no image is good"
    )
    read_as: tuple[str, ...] = Field((), description="how names were interpreted")
    notes: tuple[str, ...] = Field(description="what else is worth knowing, one sentence per kind")

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield lines for people to read, which fit one screen, and `width` columns if given."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        yield f"data: {self.root}, layout {self.layout}: {counts}"
        if self.held_out:
            by = f", by group ({self.groups:,} groups)" if self.groups else ""
            yield f"  val was held out from train{by}: the data set names none"
        elif self.groups:
            yield f"  {self.groups:,} groups, none of them in two splits"
        yield from (f"  read as: {phrase}" for phrase in self.read_as)
        if self.pixels:
            yield f"  pixels: {self.pixels.words()}"
        column = min(LONG, max((len(category.name) for category in self.categories[:SHOWN]), default=0))
        for category in self.categories[:SHOWN]:
            head = f"  {category.name:{column}}  "
            room = min(WIDTH, width - len(head)) if width else WIDTH
            yield f"{head}{_classes(category, room)}"
        if len(self.categories) > SHOWN:
            yield f"  and {len(self.categories) - SHOWN} more categories"


def summary(
    config: DataConfig, table: Table, *, held_out: bool, notes: Sequence[str], is_whole: bool = True
) -> Summary:
    """Return the figures of `table`, read with `config`; `is_whole` is False if faults kept answers out of it."""
    rows = {split: table.split(split) for split in SPLITS}
    counts = {split: counted(rows[split], table.categories) for split in SPLITS}
    learnt = label_matrix(
        [row for split in ("train", "val") for row in rows[split] if row.labels or is_whole], table.categories
    )
    categories = tuple(
        CategorySummary(
            name=span.category.name,
            classes=tuple(
                ClassSummary(name=name, images={split: counts[split][k, c] for split in SPLITS})
                for c, name in enumerate(span.category.classes)
            ),
            multi=span.category.multi,
            **_shares(learnt[:, span.labels], multi=span.category.multi),
        )
        for k, span in enumerate(spans(table.categories))
    )
    return Summary(
        layout=config.layout,
        root=config.root,
        images={split: len(rows[split]) for split in SPLITS},
        held_out=held_out,
        groups=len({row.group for row in table.rows} - {None}) or None,
        categories=categories,
        notes=tuple(notes),
    )


def _shares(labels: np.ndarray, *, multi: bool) -> dict[str, float]:
    """Return the share of missing labels in a category, [N, width], and how many answers an image has."""
    missing = {"missing": int((labels == MISSING).sum()) / labels.size} if labels.size else {}
    answered = labels[(labels != MISSING).any(1)] > 0
    if not multi or not len(answered):
        return missing
    return missing | {"answers": float(answered.sum(1).mean()), "empty": float((~answered.any(1)).mean())}


def pixels(sizes: np.ndarray) -> PixelSummary | None:
    """Summarise widths and heights, [N, 2]; None if there are none."""
    if not len(sizes):
        return None
    order, middle = np.argsort(sizes.prod(1, dtype=np.int64), kind="stable"), np.median(sizes, axis=0)
    ratios = np.log([width / height for width, height in ASPECTS])
    closest = np.abs(np.log(sizes[:, 0] / sizes[:, 1])[:, None] - ratios).argmin(1)
    commonest = int(np.bincount(closest).argmax())
    return PixelSummary(
        median=(int(middle[0]), int(middle[1])),
        smallest=(int(sizes[order[0], 0]), int(sizes[order[0], 1])),
        largest=(int(sizes[order[-1], 0]), int(sizes[order[-1], 1])),
        aspect=ASPECTS[commonest],
        aspect_share=float((closest == commonest).mean()),
    )


def _classes(category: CategorySummary, width: int) -> str:
    """List the classes with their images, most frequent first; if there are many, those that fit and the rarest."""
    counted = sorted(((sum(one.images.values()), one.name) for one in category.classes), key=lambda one: -one[0])
    words = [f"{name} {count:,}" for count, name in counted]
    head = f"{len(words)} classes{_answers(category)}: "
    line = head + ", ".join(words)
    for shown in range(min(len(words) - 1, width), 0, -1):
        if len(line) <= width:
            break
        left = len(words) - shown - 1
        line = f"{head}{', '.join(words[:shown])}, {f'{left} more, ' if left else ''}{words[-1]}"
    return line


def _answers(category: CategorySummary) -> str:
    """Describe how many answers an image has, unless each has one."""
    several = f", {category.answers:.1f} per image" if category.answers is not None else ", several per image"
    none = f", {_share(category.empty)} have none" if category.empty else ""
    missing = f", {_share(category.missing)} missing" if category.missing else ""
    return f"{several if category.multi else ''}{none}{missing}"


def _share(share: float) -> str:
    """Return the share in percent; a share above zero never looks like zero."""
    return f"{share:.0%}" if share >= 0.01 else "under 1%"
