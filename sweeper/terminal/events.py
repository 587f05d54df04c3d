"""The events of a sweep as one JSON object per line on stdout, for schedulers."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

from sweeper.terminal.heading import Heading
from sweeper.terminal.output import BrokenPipeSafeStream, print_message
from sweeper.terminal.summary import Known
from sweeper.terminal.views import View, comparable
from sweeper.text import finite
from sweeper.trial import Closing, Job, TrialResult
from trainers.epoch import Epoch, Scores

SCHEMA_VERSION = 1


def emit(event: str, study: str, stream: TextIO | None = None, **fields: Any) -> None:
    """Print one event, with the local time."""
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    line = {"event": event, "time": now, "study": study} | fields
    out = BrokenPipeSafeStream(sys.stdout if stream is None else stream)
    out.write(json.dumps(finite(line), allow_nan=False) + "\n")
    out.flush()


class Events(View):
    """Print an event for each start, epoch and finish; other messages go to stderr."""

    def __init__(self, known: Known, stream: TextIO | None = None) -> None:
        self._known, self._stream = known, stream

    def begin(self, heading: Heading, results: Sequence[TrialResult]) -> None:
        fields = {"schema_version": SCHEMA_VERSION, "recorded": len(results)} | heading.document()
        emit("begin", stream=self._stream, **fields)

    def plan(self, total: int | None, results: Sequence[TrialResult] = (), seconds: float | None = None) -> None:
        """The `begin` event already has it."""

    def started(self, job: Job, slot: str) -> None:
        done = len(self._known.history(job))
        self._emit("trial_begin", job, device=slot, params=job.params, done=done, epochs=job.planned)

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None:
        self._emit(
            "epoch",
            job,
            epoch=epoch.number,
            epochs=job.planned,
            metric=job.recipe.metric,
            split="val" if epoch.val else "train",
            value=epoch.known(job.recipe.metric),
            metrics={"train": _metrics(epoch.train), "val": _metrics(epoch.val)},
            seconds=epoch.seconds,
            images_per_second=epoch.images_per_second,
            best={"trial": best.number, "value": best.value} if best else None,
        )

    def ended(self, job: Job, result: TrialResult) -> None:
        told = comparable(job, result)
        names = ("state", "metric", "value", "epoch", "seconds", "failure", "error")
        fields = {name: getattr(told, name) for name in names}
        self._emit("trial_end", job, done=told.epochs, epochs=told.planned, **fields)

    def note(self, text: str) -> None:
        print_message(text)

    def closed(self, _closing: Closing) -> None:
        """The caller emits the `end` event."""

    def _emit(self, event: str, job: Job, **fields: Any) -> None:
        seed = {"seed": job.recipe.train.seed} if job.has_new_seed else {}
        members = [{"trial": one.trial, "seed": one.seed} for one in job.ensemble.members] if job.ensemble else []
        known = seed | ({"members": members} if members else {})
        emit(event, job.study, self._stream, trial=job.trial, kind=job.kind, **known, **fields)


def _metrics(scores: Scores | None) -> dict[str, float] | None:
    return scores.metrics | {"loss": scores.loss} if scores else None
