"""Configurations that come up again: never trained twice unknowingly, but with a new seed."""

from sweeper.store.trial_index import digest
from sweeper.trial import Job, TrialResult
from trainers.config import Recipe


class Repeats:
    """The configurations of a study, and with which seeds which trials had them."""

    def __init__(self) -> None:
        self._trials: dict[str, dict[int, int | None]] = {}  # digest of a configuration -> seed -> trial
        self._hopeless: dict[str, TrialResult] = {}  # digest -> the first trial that there was no memory for

    def add(self, job: Job) -> None:
        """Note that `job` exists."""
        self.note(digest(job.recipe), job.recipe.train.seed, job.trial)

    def note(self, configuration: str, seed: int, trial: int | None) -> None:
        """The same of a trial that is known by the digest of its configuration; None for one of another study."""
        self._trials.setdefault(configuration, {})[seed] = trial

    def give_up(self, configuration: str, result: TrialResult) -> None:
        """Note that a trial ended for want of memory, which another seed does not change."""
        self._hopeless.setdefault(configuration, result)

    def hopeless(self, recipe: Recipe) -> TrialResult | None:
        """The trial that showed that there is no memory for this recipe, whatever its seed."""
        return self._hopeless.get(digest(recipe))

    def reseeded(self, recipe: Recipe) -> tuple[Recipe, int | None]:
        """The recipe with the first seed, from its own on, that it was not trained with, and whom here it repeats."""
        trials = self._trials.get(digest(recipe))
        if not trials:
            return recipe, None
        seed = recipe.train.seed
        while seed in trials:
            seed += 1
        train = recipe.train.model_copy(update={"seed": seed})
        here = [number for number in trials.values() if number is not None]
        return recipe.model_copy(update={"train": train}), min(here, default=None)
