"""Local weights that were moved to another path: with the same bytes the study stays the same."""

from typing import Any

from sweeper.space.space import Space
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from trainers.support import weights_folder
from trainers.support.files import sha256


def checksums(space: Space) -> dict[str, str]:
    """Return the checksum of the local weights of each backbone, where the file exists."""
    trains = [recipe.train for recipe in space.recipes() if recipe.train.pretrained and recipe.train.weights]
    found = {train.backbone: weights_folder.find(train.weights or "", train.backbone).file for train in trains}
    return {backbone: sha256(path) for backbone, path in found.items() if path.is_file()}


def have_moved(before: dict[str, Any], asked: dict[str, Any], space: Space) -> bool:
    """True if the study `before` started with the same weights at another path."""
    old, new = (identity["train"].get("weights") for identity in (before["identity"], asked))
    if not (isinstance(old, str) and isinstance(new, str) and old != new and before.get("weights")):
        return False
    return bool(before["weights"] == checksums(space))


def moved(folder: StudyFolder, identity: dict[str, Any], new: str) -> dict[str, Any]:
    """Write the new path to all runs of the study; return the identity with that path.

    A kill on the way leaves study.json unchanged, so the next call continues the move.
    """
    old = identity["train"]["weights"]
    folder.trial_index.unlink(missing_ok=True)  # rebuilt, since its digests cover whole recipes
    for run in records.runs(folder):
        job = records.read_config(run)
        if job and job.recipe.train.weights == old:
            train = job.recipe.train.model_copy(update={"weights": new})
            recipe = job.recipe.model_copy(update={"train": train})
            records.write_config(run, job.model_copy(update={"recipe": recipe}))
    return identity | {"train": identity["train"] | {"weights": new}}
