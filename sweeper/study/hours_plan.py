"""What a study's hours have room for, as it was planned before anything began; kept in study.json."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from sweeper import text
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder


class HoursPlan(BaseModel):
    """The trainings that fit; `values` stand in the place of the preset's. The number of trials is no limit."""

    model_config = ConfigDict(frozen=True)

    hours: float
    retrains: bool
    slots: int  # trials side by side
    values: Mapping[str, Any]  # image_size and epochs, where the preset gave them
    image_size: str
    epochs: int
    trial_seconds: float  # of a trial that runs to its end
    final_seconds: float  # of the retraining
    start_seconds: float  # until the first trial trains
    configurations: int | None = None  # that there are

    @property
    def trials(self) -> int:
        """How many run to their end within the hours, with time left for the retraining."""
        found = self.slots * self.rounds
        return found if self.configurations is None else min(found, self.configurations)

    @property
    def rounds(self) -> int:
        """The same for each slot."""
        return max(0, math.floor((self.hours * 3600 - self.start_seconds - self.aside) / self.trial_seconds))

    @property
    def aside(self) -> float:
        """Seconds that are kept for the retraining."""
        return self.final_seconds if self.retrains else 0.0

    def document(self) -> dict[str, Any]:
        """As study.json and the commands' JSON have it."""
        return {**self.model_dump(mode="json"), "trials": self.trials}

    @property
    def once(self) -> bool:
        """Whether, for want of time for two trials and a retraining, the default is trained once on train and val."""
        return self.retrains and self.trials < min(2, self.configurations or 2)

    @property
    def once_seconds(self) -> float:
        """Of the least that makes sense: that one training, or where nothing is retrained, one trial."""
        return self.final_seconds if self.retrains else self.start_seconds + self.trial_seconds

    @property
    def fits_once(self) -> bool:
        return self.once_seconds <= self.hours * 3600

    @property
    def shape(self) -> str:
        """Length and size of a training, such as `10 epochs at 128 px`."""
        return f"{text.counted(self.epochs, 'epoch')} at {self.image_size} px"

    @property
    def line(self) -> str:
        """As the heading has it: `2 h = 6 trials of 10 epochs at 128 px (16m each) + retraining 21m`."""
        each, last = text.format_duration(self.trial_seconds), text.format_duration(self.final_seconds)
        if self.once:
            few = "too few for a search, so the default is trained once on train and val"
            return f"{self.hours:g} h are {few}: {self.shape} ({last})"
        side = f", {self.slots} side by side" if self.slots > 1 else ""
        final = f" + retraining {last}" if self.retrains else ""
        return f"{self.hours:g} h = {text.counted(self.trials, 'trial')} of {self.shape} ({each} each{side}){final}"


def stored(folder: StudyFolder) -> HoursPlan | None:
    """The plan with which the study in `folder` began, if it had one."""
    found = (study_file.read(folder) or {}).get("plan")
    return HoursPlan.model_validate(found) if found else None
