"""The first trials: until there are results to learn from, values are drawn near those that are likely to be good."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.space.priors import Around
from sweeper.space.spec import GP, TPE, CustomSampler, Grid, Search

if TYPE_CHECKING:
    from sweeper.space.space import Space

TRUSTED = 3  # trials near the prior, the default among them, before one is drawn evenly


class StartingPrior:
    """Draws from a prior, if there is one, those values of a trial that the sampler would draw at random.

    Once a few trials near the prior have results, one trial is drawn evenly. While the median of such even draws is
    better, the next trial is drawn evenly, too: a wrong prior costs little.
    A draw depends only on the study's seed, the trial's number and the parameter's name; the results so far decide
    only if it is made. A resumed study therefore draws the same.
    """

    def __init__(self, search: Search, space: "Space") -> None:
        self._search, self._space = search, space

    @cached_property
    def _priors(self) -> dict[str, dict[str, Around]]:
        off = self._search.prior == "off" or isinstance(self._search.sampler, Grid | CustomSampler)
        return {} if off else self._space.priors()

    def ask(self, study: optuna.Study, number: int, fixed: Mapping[str, Any]) -> optuna.Trial:
        """Return the trial of this number, with `fixed` values and those of a prior; the sampler draws the rest."""
        near = self._starts(study) and not self._doubted(study)
        given = {**self._drawn(number, fixed), **fixed} if near else dict(fixed)
        if given:
            study.enqueue_trial(given)
        return study.ask()

    def _starts(self, study: optuna.Study) -> bool:
        """True if the sampler itself would draw at random, because it has too few results."""
        sampler = self._search.sampler
        if not isinstance(sampler, TPE | GP):
            return True
        learnt = [TrialState.COMPLETE] + [TrialState.PRUNED] * isinstance(sampler, TPE)
        return len(study.get_trials(deepcopy=False, states=learnt)) < sampler.startup_trials

    def _doubted(self, study: optuna.Study) -> bool:
        """True if an even draw should test the prior, or if even draws have been better than it."""
        if not (self._priors and isinstance(self._search.sampler, TPE | GP)):
            return False
        worth: dict[bool, list[float]] = {True: [], False: []}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            if trial.number >= 0 and (value := _value(trial)) is not None:  # below 0: from another study
                worth[self._is_near(trial)].append(value)
        near, even = worth[True], worth[False]
        if not (near and even):
            return len(near) >= TRUSTED
        sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
        return sign * median(even) > sign * median(near)

    def _is_near(self, trial: FrozenTrial) -> bool:
        """True if a trial is a default or was drawn from the prior, not by the sampler."""
        if trial.number < self._defaults:
            return True
        backbone = trial.params.get("backbone")  # it may have been fixed
        drawn = self._drawn(trial.number, {"backbone": backbone} if backbone in self._priors else {})
        return all(trial.params[name] == value for name, value in drawn.items() if name in trial.params)

    @cached_property
    def _defaults(self) -> int:
        return len(self._space.default())

    def _drawn(self, number: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return values near the defaults of a backbone: the fixed one, else one drawn evenly."""
        if not self._priors:
            return {}
        backbone = fixed.get("backbone", self._backbone(number))
        near = {name: each.quantile(self._share(number, name)) for name, each in self._priors[backbone].items()}
        return near | ({"backbone": backbone} if len(self._priors) > 1 else {})

    def _backbone(self, number: int) -> str:
        """Draw a backbone: by its prior if search.prior has one, else evenly."""
        share, (first, *_) = self._share(number, "backbone"), self._priors.values()
        backbones = list(self._priors)
        return first["backbone"].quantile(share) if "backbone" in first else backbones[int(share * len(backbones))]

    def _share(self, number: int, name: str) -> float:
        """Return a pseudo-random number from 0 to 1 for a trial and a parameter."""
        words = f"prior {self._search.seed} {number} {name}".encode()
        return int.from_bytes(hashlib.blake2b(words, digest_size=6).digest(), "little") / 2**48


def _value(trial: FrozenTrial) -> float | None:
    """Return the value of a trial; for a pruned or paused one, its last report."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None
