"""Images and local weights that were moved to another path: with the same content the study stays the same."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.space.space import Space
from sweeper.store import records, study_file
from sweeper.store.paths import StudyFolder
from trainers.support import weights_folder
from trainers.support.files import sha256

if TYPE_CHECKING:
    from trainers.config import Recipe

ROOT, WEIGHTS = ("data", "root"), ("train", "weights")

Moves = Mapping[tuple[str, str], str]
"""The new path, by part and key of a recipe."""


def checksums(space: Space) -> dict[str, str]:
    """Return the checksum of the local weights of each backbone, where the file exists."""
    trains = [recipe.train for recipe in space.recipes() if recipe.train.pretrained and recipe.train.weights]
    found = {train.backbone: weights_folder.find(train.weights or "", train.backbone).file for train in trains}
    return {backbone: sha256(path) for backbone, path in found.items() if path.is_file()}


def moves(before: dict[str, Any], asked: dict[str, Any], space: Space, fingerprint: str) -> Moves:
    """Return what the study `before` started with and now has, unchanged, at another path."""
    found = {key: path for key in (ROOT, WEIGHTS) if (path := _other(before["identity"], asked, *key))}
    recorded = before.get("fingerprint", "")
    if not (recorded and study_file.same_fingerprint(recorded, fingerprint)):
        found.pop(ROOT, None)
    if WEIGHTS in found and not (before.get("weights") and before["weights"] == checksums(space)):
        del found[WEIGHTS]
    return found


def _other(before: dict[str, Any], asked: dict[str, Any], part: str, key: str) -> str | None:
    old, new = (identity[part].get(key) for identity in (before, asked))
    return new if isinstance(old, str) and isinstance(new, str) and old != new else None


def renamed(identity: dict[str, Any], moves: Moves) -> dict[str, Any]:
    """Return an identity with the new paths."""
    for (part, key), new in moves.items():
        identity = identity | {part: identity[part] | {key: new}}
    return identity


def follow(folder: StudyFolder, moves: Moves) -> None:
    """Write the new paths to all runs of the study. A kill on the way leaves study.json unchanged, so the next call
    continues the move.
    """
    folder.trial_index.unlink(missing_ok=True)  # rebuilt, since its digests cover whole recipes
    for run in records.runs(folder):
        job = records.read_config(run)
        if job and (recipe := _moved(job.recipe, moves)) != job.recipe:
            records.write_config(run, job.model_copy(update={"recipe": recipe}))


def _moved(recipe: "Recipe", moves: Moves) -> "Recipe":
    for (part, key), new in moves.items():
        section = getattr(recipe, part)
        if getattr(section, key) is not None:
            recipe = recipe.model_copy(update={part: section.model_copy(update={key: new})})
    return recipe
