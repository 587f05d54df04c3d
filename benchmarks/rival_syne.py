"""A rival for sweep.py: the search of plain.py with Syne Tune's ASHA and its conformal quantile regression.

It takes the arguments of plain.py, and is written as in Syne Tune's documentation: one process per trial.
Syne Tune's spaces have no branches, so gamma and smoothing are both drawn. The first trial has the usual settings.
Unlike in the documentation, the tuner looks for ended trials twice per second instead of every five.
"""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

import plain
from syne_tune import Reporter, StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import choice, loguniform, uniform
from syne_tune.optimizer.baselines import ASHACQR

SPACE = {
    "lr": loguniform(1e-4, 1e-2),
    "weight_decay": loguniform(1e-3, 0.3),
    "loss": choice(["cross_entropy", "focal"]),
    "min_area": uniform(0.2, 1.0),
    "brightness": uniform(0.0, 0.4),
    "warmup": choice([0, 1]),
    "gamma": uniform(0.0, 4.0),
    "smoothing": uniform(0.0, 0.2),
}


def search(given: plain.Given) -> None:
    plain.prepare(given)
    constants = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(given).items()}
    scheduler = ASHACQR(
        {**SPACE, **constants},
        metric="accuracy",
        time_attr="epoch",
        max_t=given.epochs,
        do_minimize=False,
        random_seed=given.seed,
        points_to_evaluate=[{**plain.USUAL, "gamma": 2.0}],
    )
    os.environ["SYNETUNE_FOLDER"] = str(given.out)  # otherwise it writes to the home folder
    tuner = Tuner(
        trial_backend=LocalBackend(__file__, binary=sys.executable),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_trials_started=given.trials),
        n_workers=given.slots,
        sleep_time=0.5,
        wait_trial_completion_when_stopping=True,
        trial_backend_path=str(given.out / "syne"),
    )
    tuner.run()


def trial() -> None:
    """Train with the values on the command line."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--st_checkpoint_dir", type=Path, required=True)
    for name, domain in SPACE.items():
        ask.add_argument(f"--{name}", type=domain.value_type)
    asked, others = ask.parse_known_args()
    sys.argv[1:] = others
    params = vars(asked)
    number = int(params.pop("st_checkpoint_dir").parent.name)
    given = plain.arguments(__doc__ or "")
    report = Reporter()
    for epoch, value in enumerate(plain.training(given).run(params, number), 1):
        report(epoch=epoch, accuracy=value)


if __name__ == "__main__":
    if "--st_checkpoint_dir" in sys.argv:
        trial()
    else:
        search(plain.arguments(__doc__ or ""))
