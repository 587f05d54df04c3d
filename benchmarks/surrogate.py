"""A surrogate for training any configuration: a Gaussian process fitted to recorded trainings, and their noise.

With a surrogate benchmark (Eggensperger et al. 2015), a search can evaluate any configuration, not only trained ones.
The surrogate is smooth between the trained ones, and far from all of them it predicts their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

Array = np.ndarray[Any, np.dtype[np.float64]]
Params = Mapping[str, Any]
MIDDLE = 0.5  # the place of a parameter that a configuration does not have


def places(params: Params, known: Mapping[str, BaseDistribution]) -> list[float]:
    """Return a configuration as numbers from 0 to 1: one on the scale of each range, one per option of a choice."""
    found: list[float] = []
    for name, values in known.items():
        if isinstance(values, CategoricalDistribution):
            found += [float(params.get(name) == option) for option in values.choices]
        elif isinstance(values, FloatDistribution | IntDistribution):
            found.append(_place(params[name], values) if name in params else MIDDLE)
    return found


def _place(value: float, values: FloatDistribution | IntDistribution) -> float:
    low, high, here = (np.log(each) if values.log else float(each) for each in (values.low, values.high, value))
    return float((here - low) / (high - low))


@dataclass(frozen=True)
class Surrogate:
    """The expected val curve and worth of any configuration, and the noise of a training."""

    known: Mapping[str, BaseDistribution]
    trained: Array  # [trainings, numbers]
    scales: Array  # the length of each number, then the variances of signal and noise
    solved: Array  # [trainings, epochs + 1]
    mean: Array  # [epochs + 1]
    noises: Array  # [trainings, epochs + 1]
    explained: float  # share of the variance of the worth that is explained leave-one-out

    def expected(self, configurations: Sequence[Params]) -> Array:
        """Return the mean val score after each epoch, and the mean worth: [configurations, epochs + 1]."""
        asked = np.array([places(params, self.known) for params in configurations])
        found: Array = self.mean + _kernel(asked, self.trained, self.scales) @ self.solved
        return found

    def noise(self, rng: np.random.Generator) -> Array:
        """Draw the deviation of one training from the means of its val scores: [epochs]."""
        found: Array = self.noises[rng.integers(len(self.noises)), :-1]
        return found


def fitted(trainings: Sequence[Mapping[str, Any]], known: Mapping[str, BaseDistribution]) -> Surrogate:
    """Fit the surrogate to trainings with their `params`, `val` scores and `test` score."""
    at = np.array([places(one["params"], known) for one in trainings])
    seen = np.array([[*one["val"], one["test"]] for one in trainings])
    mean = seen.mean(0)
    goals = ((seen - mean) / seen.std(0))[:, -2:]  # the value of a trial, and its worth

    def loss(logs: Array) -> float:
        scales = np.exp(logs)
        lower = cholesky(_noisy(at, scales), lower=True)
        fit = (goals * cho_solve((lower, True), goals)).sum() / 2 + goals.shape[1] * np.log(np.diag(lower)).sum()
        return float(fit + ((logs[:-2] - np.log(0.7)) ** 2).sum() / 2)  # lengths are some share of a range

    count = at.shape[1]
    starts = [np.log([*[length] * count, 1.0, noise]) for length in (0.4, 1.5) for noise in (0.1, 0.5)]
    bounds = [(-3.0, 3.0)] * count + [(-3.0, 3.0), (-5.0, 1.0)]
    best = min((minimize(loss, start, bounds=bounds, method="L-BFGS-B") for start in starts), key=lambda one: one.fun)
    scales = np.exp(best.x)
    inverse = np.linalg.inv(_noisy(at, scales))
    solved = inverse @ (seen - mean)
    left_out = solved / inverse.diagonal()[:, None]  # the error of each training's prediction from the others
    explained = 1 - float((left_out[:, -1] ** 2).sum() / ((seen - mean)[:, -1] ** 2).sum())
    noises = solved * np.sqrt(scales[-1] / inverse.diagonal())[:, None]  # the part of it that is noise
    return Surrogate(known, at, scales, solved, mean, noises, explained)


def _noisy(at: Array, scales: Array) -> Array:
    found: Array = _kernel(at, at, scales) + (scales[-1] + 1e-6) * np.eye(len(at))
    return found


def _kernel(one: Array, other: Array, scales: Array) -> Array:
    """Return the Matern 5/2 kernel with a length for each number."""
    apart = (one[:, None, :] - other[None, :, :]) / scales[:-2]
    distance = np.sqrt(5 * (apart**2).sum(-1))
    found: Array = scales[-2] * (1 + distance + distance**2 / 3) * np.exp(-distance)
    return found
