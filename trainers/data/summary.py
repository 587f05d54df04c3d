"""What was understood of a data set: splits, categories, classes with their images, and what is worth knowing."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from trainers.config import DataConfig
from trainers.data.table import SPLITS, Table, counted
from trainers.epoch import Part

WIDTH = 100  # characters of a line
SHOWN = 20  # categories that have a line of their own
LONG = 30  # characters of a name that the others are aligned with


class ClassSummary(Part):
    """One class, and how many labelled images each split has of it."""

    name: str
    images: dict[str, int] = Field(description="by split; test counts only where it has labels")


class CategorySummary(Part):
    """One category, its classes in label order."""

    name: str
    classes: tuple[ClassSummary, ...]
    multi: bool = Field(False, description="an image may have several of the classes")


class Summary(Part):
    """A data set in figures."""

    layout: str
    root: str
    images: dict[str, int] = Field(description="images of each split")
    held_out: bool = Field(description="val was chosen here, because the data set names none")
    categories: tuple[CategorySummary, ...]
    notes: tuple[str, ...] = Field(description="what is worth knowing, a sentence for each kind")

    def lines(self) -> Iterator[str]:
        """As a person reads it, on one screen."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        chosen = " (val was held out of train: the data set names none)" if self.held_out else ""
        yield f"data: {self.root}, layout {self.layout}: {counts}{chosen}"
        width = min(LONG, max((len(category.name) for category in self.categories[:SHOWN]), default=0))
        yield from (f"  {category.name:{width}}  {_classes(category)}" for category in self.categories[:SHOWN])
        if len(self.categories) > SHOWN:
            yield f"  and {len(self.categories) - SHOWN} more categories"


def summary(config: DataConfig, table: Table, *, held_out: bool, notes: Sequence[str]) -> Summary:
    """The figures of `table`, which was read as `config` says."""
    counts = {split: counted(table.split(split), table.categories) for split in SPLITS}
    categories = tuple(
        CategorySummary(
            name=category.name,
            classes=tuple(
                ClassSummary(name=name, images={split: counts[split][k, c] for split in SPLITS})
                for c, name in enumerate(category.classes)
            ),
            multi=category.multi,
        )
        for k, category in enumerate(table.categories)
    )
    return Summary(
        layout=config.layout,
        root=config.root,
        images={split: len(table.split(split)) for split in SPLITS},
        held_out=held_out,
        categories=categories,
        notes=tuple(notes),
    )


def _classes(category: CategorySummary) -> str:
    """How many classes, and the images of each, the most frequent first; of many those that fit, and the rarest."""
    counted = sorted(((sum(one.images.values()), one.name) for one in category.classes), key=lambda one: -one[0])
    words = [f"{name} {count:,}" for count, name in counted]
    head = f"{len(words)} classes: "
    if len(head) + len(", ".join(words)) <= WIDTH:
        return head + ", ".join(words)
    last = words.pop()
    while len(words) > 1 and len(head) + len(", ".join(words)) + len(last) + 20 > WIDTH:
        words.pop()
    left = len(counted) - len(words) - 1
    return f"{head}{', '.join(words)}, {f'{left} more, ' if left else ''}{last}"
