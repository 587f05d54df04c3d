"""What a person may say beside the file: values for the study, and where and how it runs."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import UserError
from sweeper.store.paths import StudyFolder
from sweeper.system.devices import Count

if TYPE_CHECKING:
    from sweeper.space.spec import StudySpec


PAIR = 2  # models that hours alone retrain side by side on a CPU


@dataclass(frozen=True)
class Options:
    """What `sweep run` was given beside the file."""

    sets: tuple[str, ...] = ()
    trials: int | None = None
    hours: float | None = None
    devices: str | None = None
    slots: Count | None = None  # trials side by side on each device; None where nobody says
    new_study: str | None = None
    inline: bool = False
    ray: str | None = None  # address of a cluster, which then trains
    mlflow: bool = True
    log_format: str = "text"  # json: events on stdout
    then_best: bool | None = None  # a final follows, for which time is kept; None where hours are the only budget

    def check(self) -> None:
        """Raises UserError for what does not go together."""
        if self.ray and self.inline:
            raise UserError("--inline trains in this process", where="--ray", help="leave one of the two out")
        if self.ray and self.devices not in (None, "cpu"):
            raise UserError(
                "on a cluster all GPUs are used",
                where="--devices",
                help="leave it out, or say --devices cpu; CUDA_VISIBLE_DEVICES of ray start keeps GPUs from it",
            )

    @property
    def events(self) -> bool:
        """Whether what happens is told as JSON."""
        return self.log_format == "json"

    @property
    def assignments(self) -> list[str]:
        """Everything that changes the file's values, as --set takes it."""
        found = [*self.sets]
        found += [f"budget.trials={self.trials}"] if self.trials is not None else []
        found += [f"budget.hours={self.hours}"] if self.hours is not None else []
        return found + ([f"study={self.new_study}"] if self.new_study else [])

    def retrains(self, spec: "StudySpec") -> bool:
        """Whether the winner is retrained within the hours of the study."""
        return spec.by_hours if self.then_best is None else self.then_best

    @property
    def per_device(self) -> Count:
        """How many trials share a device."""
        return 1 if self.slots is None else self.slots

    def teacher(self, space: Path) -> StudyFolder | None:
        """The study that the file at `space` names, where another one is begun."""
        from sweeper.space import yaml_io

        return StudyFolder.named(yaml_io.read(space, sets=self.sets).study) if self.new_study else None

    def command(self, space: Path) -> str:
        """The same call again, quoted for a shell."""
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
