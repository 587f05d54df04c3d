"""Configurations that come up again: never trained twice unknowingly, but with a new seed."""

from sweeper.trial import Job
from trainers.config import Recipe


class Repeats:
    """The configurations of a study, and with which seeds which trials had them."""

    def __init__(self) -> None:
        self._trials: dict[str, dict[int, int]] = {}  # configuration without its seed -> seed -> trial

    def add(self, job: Job) -> None:
        """Note that `job` exists."""
        self._trials.setdefault(_key(job.recipe), {})[job.recipe.train.seed] = job.trial

    def reseeded(self, recipe: Recipe) -> tuple[Recipe, int | None]:
        """The recipe with the first seed, from its own on, that it was not trained with, and whom it repeats."""
        trials = self._trials.get(_key(recipe))
        if not trials:
            return recipe, None
        seed = recipe.train.seed
        while seed in trials:
            seed += 1
        train = recipe.train.model_copy(update={"seed": seed})
        return recipe.model_copy(update={"train": train}), min(trials.values())


def _key(recipe: Recipe) -> str:
    return recipe.model_dump_json(exclude={"train": {"seed"}})
