"""A finished run, read from its folder and data set, for figures and statistics. Loads no drawing library."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from sweeper.errors import EnvironmentFault, UserError
from sweeper.statistics import confusion
from sweeper.store import records, study_file
from sweeper.store.paths import RunFolder
from sweeper.trial import Job, TrialResult
from trainers import extensions
from trainers.data import layouts, splitting
from trainers.data.table import FITTED, MISSING, Category, Row, Table, label_matrix
from trainers.data_config import LAYOUTS, DataConfig
from trainers.epoch import Epoch
from trainers.support.checksummed import load_array


class Run:
    """A finished run, read from its folder and data set; each part is read when first needed."""

    def __init__(self, folder: RunFolder, job: Job, result: TrialResult) -> None:
        self.folder, self.job, self.result = folder, job, result
        self.split = "test" if job.kind == "final" else "val"
        self.fit = ("train", "val") if job.kind == "final" or job.folds else ("train",)

    @cached_property
    def epochs(self) -> list[Epoch]:
        return records.history(self.folder)

    @cached_property
    def table(self) -> Table:
        """The data set. Raises UserError if it has changed since the study started, or test since the predictions."""
        recipe = self.job.recipe
        table = _table(recipe.data, self.folder.extensions, tuple(recipe.extensions.items()))
        fitted = f"{table.fingerprint}--{table.digest(*FITTED)}"
        study_file.same_data(self.folder.study, fitted, recipe.data.root)
        if self.split == "test" and not study_file.predicts(self.folder, fitted, table.digest("test")):
            help = f"sweep best {self.job.study} --export submission predicts the current ones"
            raise UserError("its predictions are for other test images", where=str(self.folder.root), help=help)
        return table

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that its predictions belong to."""
        return splitting.judged_on(self.table, self.job.folds).split(self.split)

    @property
    def sizes(self) -> list[int]:
        return [len(category.classes) for category in self.table.categories]

    @property
    def place(self) -> Path:
        """The path of the predictions; perhaps only the best trials have kept theirs."""
        return self.folder.test_logits if self.split == "test" else self.folder.val_logits

    @property
    def seen(self) -> bool:
        """True if its predictions exist."""
        return self.place.exists()

    @cached_property
    def logits(self) -> confusion.Array:
        """The logits of the split's rows, [N, sum C]. Raises EnvironmentFault if damaged or for other data."""
        path = self.place
        found: confusion.Array = load_array(path)
        wanted = (len(self.rows), sum(self.sizes))
        if found.shape != wanted:
            raise EnvironmentFault(
                f"predictions have shape {found.shape}, but the data set needs {wanted}", where=str(path)
            )
        return found

    @property
    def labels(self) -> confusion.Ints:
        return labels_of(self.rows, self.split, self.table.categories)

    def name(self, what: str) -> str:
        return f"{self.job.study} {self.job.label}: {what}"


@lru_cache(maxsize=2)
def _table(config: DataConfig, copies: Path, wanted: tuple[tuple[str, str], ...]) -> Table:
    """Read the data set; the layout of an extension file comes from the stored copy with the `wanted` checksum."""
    if config.layout not in LAYOUTS:
        extensions.use(extensions.stored(copies, dict(wanted)))
    return layouts.read(config)


def labels_of(rows: Sequence[Row], split: str, categories: Sequence[Category]) -> confusion.Ints:
    """Return labels [N, D], MISSING if unknown. Raises EnvironmentFault if all are."""
    found: confusion.Ints = label_matrix(rows, categories).astype(np.int64)
    if not (found != MISSING).any():
        raise EnvironmentFault(f"no image of {split} has labels")
    return found
