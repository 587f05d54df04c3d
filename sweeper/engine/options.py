"""The options of `sweep run`: values for the study, and where and how it runs."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import UserError
from sweeper.store.paths import StudyFolder
from sweeper.system.devices import Count

if TYPE_CHECKING:
    from sweeper.space.spec import StudySpec


PAIR = 2  # models that hours alone retrain


@dataclass(frozen=True)
class Options:
    """The options given to `sweep run` beside the file."""

    sets: tuple[str, ...] = ()
    trials: int | None = None
    hours: float | None = None
    devices: str | None = None
    slots: Count | None = None  # trials side by side on each device; None if not given
    new_study: str | None = None
    inline: bool = False
    ray: str | None = None  # address of the cluster to train on
    mlflow: bool = True
    log_format: str = "text"  # json: events on stdout
    then_best: bool | None = None  # retrain afterwards, in reserved time; None: if hours are the only budget

    def check(self) -> None:
        """Raise UserError for options that exclude each other."""
        if self.ray and self.inline:
            raise UserError(
                "--inline trains in this process, not on a cluster", where="--ray", help="use only one of them"
            )
        if self.ray and self.devices not in (None, "cpu"):
            raise UserError(
                "a cluster always uses all its GPUs",
                where="--devices",
                help="leave it out, or use --devices cpu; to exclude GPUs, set CUDA_VISIBLE_DEVICES for ray start",
            )

    @property
    def events(self) -> bool:
        """True if events are logged as JSON."""
        return self.log_format == "json"

    @property
    def assignments(self) -> list[str]:
        """All options that override the file's values, in the form of --set."""
        found = [*self.sets]
        found += [f"budget.trials={self.trials}"] if self.trials is not None else []
        found += [f"budget.hours={self.hours}"] if self.hours is not None else []
        return found + ([f"study={self.new_study}"] if self.new_study else [])

    def retrains(self, spec: "StudySpec") -> bool:
        """True if the winner is retrained within the hours of the study."""
        return spec.by_hours if self.then_best is None else self.then_best

    @property
    def per_device(self) -> Count:
        """The number of trials that share a device."""
        return 1 if self.slots is None else self.slots

    def teacher(self, space: Path) -> StudyFolder | None:
        """Return the study that the file at `space` names if a new one is started from it; otherwise None."""
        from sweeper.space import yaml_io

        if not self.new_study:
            return None
        others = replace(self, new_study=None).assignments
        return StudyFolder.named(yaml_io.read(space, sets=others).study)

    def command(self, space: Path) -> str:
        """Return the command that repeats this call, quoted for a shell."""
        words = ["sweep", "run", str(space)]
        for assignment in self.sets:
            words += ["--set", assignment]
        named = {"trials": self.trials, "hours": self.hours, "devices": self.devices, "ray": self.ray}
        for name, value in named.items():
            words += [f"--{name}", str(value)] if value is not None else []
        words += ["--new-study", self.new_study] if self.new_study else []
        words += ["--log-format", self.log_format] if self.log_format != "text" else []
        words += ["--slots", str(self.slots)] if self.slots is not None else []
        flags = {"inline": self.inline, "no-mlflow": not self.mlflow}
        flags |= {} if self.then_best is None else {"then-best": self.then_best, "no-then-best": not self.then_best}
        return shlex.join(words + [f"--{name}" for name, given in flags.items() if given])
