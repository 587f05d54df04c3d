"""Optuna's CMA-ES, which learns how the parameters of a space depend on each other. Needs the package cmaes."""

import optuna


def cma_es(seed: int, startup_trials: int = 4, population: int = 4) -> optuna.samplers.BaseSampler:
    return optuna.samplers.CmaEsSampler(
        seed=seed, n_startup_trials=startup_trials, popsize=population, warn_independent_sampling=False
    )


samplers = {"cma_es": cma_es}
