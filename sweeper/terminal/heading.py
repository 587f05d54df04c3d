"""The heading of a sweep, shown before its first trial."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.text import counted


@dataclass(frozen=True)
class Heading:
    """The study, its data, metric, devices and budget, and where to watch it."""

    study: str
    source: str
    metric: str
    minimize: bool
    data: Sequence[str]  # as its summary says it
    images: Mapping[str, int]  # by split
    classes: Mapping[str, int]  # by category
    devices: Sequence[str]
    slots: int | str
    trials: int | None
    hours: float | None
    folder: str
    browse: str | None
    plan: str | None = None  # for a budget of hours alone
    folds: int | None = None  # trainings per trial

    def lines(self, ended: int, started: int) -> Iterator[str]:
        """Yield the heading as text, without the data; the study has `started` trials, `ended` of them finished."""
        left = f", {started - ended} of them to resume" if started > ended else ""
        known = f"; {counted(started, 'trial')} on record{left}" if started else ""
        yield f"study:   {self.study}, {self.source}{known}"
        split = "val" if self.images.get("val") else "train"
        split = f"{self.folds} folds of train and val" if self.folds else split
        yield f"metric:  {self.metric} on {split}, {'less' if self.minimize else 'more'} is better"
        yield f"devices: {', '.join(self.devices)}{self._side_by_side}"
        limits = [counted(self.trials, "trial")] if self.trials else []
        limits += [f"{self.hours:g} h"] if self.hours else []
        yield f"budget:  {' or '.join(limits) or 'none: it runs until it is stopped'}"
        yield from [f"plan:    {self.plan}"] if self.plan else []
        yield f"files:   {self.folder}"
        yield from [f"browse:  {self.browse}"] if self.browse else []
        yield "stop:    Ctrl-C finishes the epoch; the same command resumes"

    @property
    def _side_by_side(self) -> str:
        if self.slots == 1:
            return ""
        return (
            ", as many trials on each as fit and save time"
            if self.slots == "auto"
            else f", {self.slots} trials on each"
        )

    def document(self) -> dict[str, Any]:
        """Return the heading as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "data"}
