"""A rival for sweep.py: the search of plain.py with Ray Tune, its ASHA, and Optuna's sampler.

It takes the arguments of plain.py, and is written as in Ray's documentation. Trials train side by side in actors that
are used again (`reuse_actors`), so that not every trial imports torch anew. The first trial has the usual settings.
"""

from functools import partial
from typing import Any

import plain
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

METRIC = {"metric": "accuracy", "mode": "max"}


def trial(config: dict[str, Any]) -> None:
    given = config.pop("given")
    number = int(tune.get_context().get_trial_id(), 16) % 1_000_000
    for value in plain.training(given).run(config, number):
        tune.report({"accuracy": value})


def space(given: plain.Given, trial: Any) -> dict[str, Any]:
    """Draw a configuration with an Optuna trial, and return what does not vary."""
    plain.suggest(trial)
    return {"given": given}


def main() -> None:
    given = plain.arguments(__doc__ or "")
    plain.prepare(given)
    ray.init("local", num_cpus=given.slots, include_dashboard=False, log_to_driver=False)
    asked = OptunaSearch(partial(space, given), points_to_evaluate=[plain.USUAL], seed=given.seed, **METRIC)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=asked,
            scheduler=ASHAScheduler(max_t=given.epochs),
            num_samples=given.trials,
            max_concurrent_trials=given.slots,
            reuse_actors=True,
            **METRIC,
        ),
        run_config=tune.RunConfig(storage_path=str(given.out / "ray"), verbose=0),
    )
    if failed := tuner.fit().errors:
        raise SystemExit(f"{len(failed)} trials failed: {failed[0]}")


if __name__ == "__main__":
    main()
