"""The probe: many configurations scored on frozen features before the first trial, and how far that held."""

import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from sweeper import board, children, devices, documents, paths, record
from sweeper.errors import DiskFull, EnvironmentFault
from sweeper.paths import StudyFolder
from sweeper.progress import talk
from sweeper.search import Probe, RandomSampler, Search
from sweeper.space import Space, key
from trainers import files

if TYPE_CHECKING:
    from sweeper.launch import Prepared
    from sweeper.stop import Stop

MODULE = "trainers.probe"
NO_ROOM = 28  # its exit code on a full disk, as trainers/probe.py has it
LOOK = 0.2  # seconds between two looks at whether a person wants to stop
LEAST = 3  # trials that a rank correlation needs to say anything
Params = dict[str, Any]
Verdict = Mapping[str, Any]
"""What trainers/probe.py says of a recipe: `score`, or null because it `diverged` or is `unjudged`."""


def queue(prepared: "Prepared", slot: devices.Slot, stop: "Stop") -> list[Params]:
    """What to try after the defaults: the best of the candidates, as many as the budget has room for.

    Nothing where the study has no probe, and with the fake trainer, which has no features. What was found is kept
    in probe.json. Raises EnvironmentFault when the features cannot be had, SystemExit when a person stops it.
    """
    asked, space = prepared.spec.search.probe, prepared.space
    if asked is None or os.environ.get("SWEEP_TRAINER") == "fake":
        return []
    drawn = candidates(prepared.spec.search, space, asked)
    talk(f"probe: {len(drawn)} candidates on frozen features on {slot.name}")
    began = time.monotonic()
    verdicts = _verdicts(_request(drawn, space, asked, slot), slot, stop)
    first = [key(params) for params in space.default()]
    room = None if prepared.spec.budget.trials is None else max(0, prepared.spec.budget.trials - len(first))
    chosen = [n for n in kept(verdicts, asked.keep) if key(drawn[n]) not in first][:room]
    _write(prepared.folder, asked, drawn, verdicts, chosen)
    talk(_said(verdicts, chosen, time.monotonic() - began))
    return [drawn[n] for n in chosen]


def candidates(search: Search, space: "Space", asked: Probe) -> list[Params]:
    """Different configurations: the sensible defaults, then random draws of the study's seed."""
    from sweeper import samplers

    at_random = search.model_copy(update={"sampler": RandomSampler()})
    drawn = samplers.first(at_random, space, asked.candidates)
    return list({key(params): params for params in drawn}.values())


class Candidate(BaseModel):
    """One that was tried; `score` is None for what could not be judged, or diverged."""

    model_config = ConfigDict(extra="allow")

    params: Params
    score: float | None


class Probed(BaseModel):
    """probe.json."""

    model_config = ConfigDict(extra="allow")

    scored: list[Candidate]


def kept(verdicts: Sequence[Verdict], share: float) -> list[int]:
    """The numbers of the candidates that are queued: the best `share`, the best first.

    Those that the probe cannot judge all go through, spread evenly among the others. One that diverged ranks last.
    """
    unjudged = [n for n, verdict in enumerate(verdicts) if verdict["unjudged"]]
    scores = {n: _score(verdict) for n, verdict in enumerate(verdicts) if not verdict["unjudged"]}
    ranked = sorted(scores, key=lambda n: -scores[n])[: math.ceil(share * len(scores))]
    sound = [n for n in ranked if not verdicts[n]["diverged"]]
    sides = enumerate((sound, unjudged))
    places = [((at + 0.5) / len(some), side, n) for side, some in sides for at, n in enumerate(some)]
    return [n for *_, n in sorted(places)]


def _score(verdict: Verdict) -> float:
    return -math.inf if verdict["diverged"] else float(verdict["score"])


def _request(drawn: Sequence[Params], space: "Space", asked: Probe, slot: devices.Slot) -> dict[str, Any]:
    return {
        "device": slot.device,
        "cache": str(paths.cache()),
        "epochs": asked.epochs,
        "recipes": [space.recipe(params).model_dump(mode="json") for params in drawn],
    }


def _verdicts(request: Mapping[str, Any], slot: devices.Slot, stop: "Stop") -> list[Verdict]:
    """What the probe's process says; it is ended, and so are we, when a person wants to stop."""
    from sweeper.executors.local import environment

    with tempfile.TemporaryFile("w+") as asked:
        json.dump(request, asked)
        asked.seek(0)
        program = children.python("-m", MODULE)
        with subprocess.Popen(
            program, stdin=asked, stdout=subprocess.PIPE, text=True, env=environment(slot), start_new_session=True
        ) as child:
            said = _said_in_time(child, stop)
    if child.returncode == NO_ROOM:
        raise DiskFull(str(paths.cache()), "the probe's features do not fit")
    lines = said.strip().splitlines()
    if child.returncode or not lines:
        raise EnvironmentFault(
            f"the probe died with code {child.returncode}",
            help="see its messages above; often it is memory. Without search.probe the study does without",
        )
    answer: list[Verdict] = json.loads(lines[-1])
    return answer


def _said_in_time(child: subprocess.Popen[str], stop: "Stop") -> str:
    """All that the process writes."""
    try:
        while True:
            try:
                return child.communicate(timeout=LOOK)[0]
            except subprocess.TimeoutExpired:
                if stop.requested:
                    talk("the probe was stopped; the same command begins it again")
                    raise SystemExit(stop.exit_code) from None
    finally:
        child.kill()


# ------------------------------------------------------------------------------------------ the record
def _write(
    folder: StudyFolder, asked: Probe, drawn: Sequence[Params], verdicts: Sequence[Verdict], chosen: Sequence[int]
) -> None:
    """Put probe.json in place: every candidate with its verdict, and its place in the queue or null."""
    lines = [
        {"params": params, **verdict, "place": chosen.index(n) if n in chosen else None}
        for n, (params, verdict) in enumerate(zip(drawn, verdicts, strict=True))
    ]
    document = {"schema_version": 1, "asked": asked.model_dump(mode="json"), "scored": lines}
    files.write_text(folder.probe, json.dumps(document | {"tau": None, "trials": 0}, indent=1) + "\n")


def _said(verdicts: Sequence[Verdict], chosen: Sequence[int], seconds: float) -> str:
    unjudged = [verdict["unjudged"] for verdict in verdicts if verdict["unjudged"]]
    text = f"probe: {len(verdicts)} candidates in {board.duration(seconds)}; the best {len(chosen)} are queued"
    return f"{text}, {len(unjudged)} of all unjudged ({unjudged[0]})" if unjudged else text


def tell_tau(folder: StudyFolder) -> None:
    """Say how the trials' values agree with the probe's scores, and note it in probe.json, if there was a probe."""
    if not folder.probe.exists():
        return
    document = documents.parsed(folder.probe.read_bytes(), Probed, str(folder.probe)).model_dump(exclude_unset=True)
    pairs = list(_pairs(document, folder))
    found = tau(*zip(*pairs, strict=True)) if len(pairs) >= LEAST else None
    try:
        files.write_text(folder.probe, json.dumps(document | {"tau": found, "trials": len(pairs)}, indent=1) + "\n")
    except OSError as error:  # on a full disk the note of before stays
        if not files.full(error):
            raise
    if found is not None:
        talk(f"probe:  Kendall's tau of its scores and the values of the {len(pairs)} completed trials: {found:.2f}")


def _pairs(document: Mapping[str, Any], folder: StudyFolder) -> Iterator[tuple[float, float]]:
    """Score and value of every candidate that was scored and whose trial ran to its end."""
    scores = {key(one["params"]): one["score"] for one in document["scored"] if one["score"] is not None}
    for result in record.results(folder):
        if result.state == "COMPLETE" and result.value is not None and key(result.params) in scores:
            yield scores[key(result.params)], result.value


def tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b, -1 to 1 (Kendall 1945); None where all values of one side are equal."""
    from scipy.stats import kendalltau

    found = float(kendalltau(first, second).statistic)
    return None if math.isnan(found) else found
