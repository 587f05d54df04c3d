"""The classes of a category: those that occur, in the user's order if there is one, without rare ones."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from trainers.data.class_names import WHOLE, class_order
from trainers.data.table import Remarks
from trainers.data.tabular.csv_file import Sheet
from trainers.data.validation import leaving_out
from trainers.data_config import DataConfig
from trainers.support.errors import Fault
from trainers.support.text import brief, did_you_mean

SHORT = 3  # letters: a name this short resembles any other
SHOWN = 10  # classes, spellings or categories in one message


def some(counts: Mapping[str, int]) -> str:
    """List names with their counts, the most frequent first: 120 blank, 14 'NA'."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    words = [f"{count:,} {repr(brief(name)) if name else 'blank'}" for name, count in ordered[:SHOWN]]
    return ", ".join(words) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")


@dataclass(frozen=True)
class Shown:
    """The number of rows with a class, in train and in total, and the cells of its column that show it."""

    train: int
    all: int
    at: int
    cells: frozenset[str]


@dataclass(frozen=True)
class Choice:
    """The choice of classes; `sure` if the split of every row is known, so that it is clear what train lacks."""

    config: DataConfig
    sheet: Sheet
    sure: bool
    remarks: Remarks

    @cached_property
    def spellings(self) -> frozenset[str]:
        """The words for a missing answer, in lower case."""
        return self.config.spellings

    def missing(self, cell: str) -> bool:
        """True if a cell stands for a missing answer; if -1 does, so does -1.0, as pandas writes it."""
        whole = WHOLE.fullmatch(cell)
        return cell.lower() in self.spellings or (whole is not None and str(int(whole[1])) in self.spellings)

    def order(self, name: str) -> tuple[str, ...]:
        """Return the classes of a category as the user lists them, or none."""
        return (self.config.classes or {}).get(name, ())

    def fault(self, what: str, help: str = "", at: int = 0, cells: Collection[str] = ()) -> None:
        """Add a fault for the table, or for these cells of a column, located at the first of them."""
        first = next(
            (where for where, record in self.sheet.records if cells and record[at] in cells), self.sheet.head
        )
        self.remarks.faults.append(Fault(first, what, help))

    def classes(self, name: str, shown: Mapping[str, Shown], usual: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the classes of a category in label order, or none if train has no answer.

        Without an order from the user, they are in the order of `usual`, or else sorted by name.
        """
        order = self._ordered(name, shown) or usual or class_order(shown)
        if not self.sure or not self.sheet.whole:
            return order
        if not any(one.train for one in shown.values()):
            help = (
                f"to leave it out, write {leaving_out(self.config, [name])}; or is data.split or data.missing wrong?"
            )
            self.fault(f"no row of train has an answer in {name!r}", help)
            return ()
        order = self._frequent(name, order, shown)
        seen = [one for one in order if one in shown and shown[one].train]
        if len(seen) < 2 <= len(order):
            what = f"train has only one class of {name!r}: {some({one: shown[one].train for one in seen})}"
            self.fault(what, f"to leave it out, write {leaving_out(self.config, [name])}")
        return order

    def _ordered(self, name: str, shown: Mapping[str, Shown]) -> tuple[str, ...]:
        """Return the user's order, followed by the classes that it lacks, which are a fault."""
        order = self.order(name)
        others = {one: shown[one].all for one in shown if order and one not in order}
        if others:
            first = next(iter(others))
            cells = {cell for one in others for cell in shown[one].cells}
            help = (
                len(first) > SHORT and did_you_mean(first, order)
            ) or "list every class there; data.missing is for cells that are not classes"
            self.fault(
                f"classes of {name!r} that data.classes does not name: {some(others)}", help, shown[first].at, cells
            )
        if unused := [one for one in order if one not in shown or not shown[one].all]:
            what = f"no row has {', '.join(map(repr, unused[:SHOWN]))} of {name!r}, which data.classes names"
            self.remarks.notes.append(Fault(self.sheet.name, what))
        return (*order, *others)

    def _frequent(self, name: str, order: tuple[str, ...], shown: Mapping[str, Shown]) -> tuple[str, ...]:
        """Return the classes that train has often enough; the others are refused, or left out."""
        fewest = self.config.min_count or 0
        train = {one: shown[one].train if one in shown else 0 for one in order}
        rare = {one: count for one, count in train.items() if count < fewest}
        if rare and self.config.rare == "ignore":
            what = f"classes of {name!r} with fewer than {fewest} rows in train are left out: {some(rare)}"
            answers = sum(shown[one].all for one in rare if one in shown)
            self.remarks.notes.append(Fault(self.sheet.name, what, f"their {answers:,} answers count as missing"))
        elif rare:
            what = f"classes of {name!r} with fewer than {fewest} rows in train: {some(rare)}"
            self.fault(what, f"data: {{min_count: {fewest}, rare: ignore}} leaves out these answers")
        return tuple(one for one in order if one not in rare) if self.config.rare == "ignore" else order
