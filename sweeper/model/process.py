"""Run a model in a process of its own, which loads torch: predictions, and programs for other runtimes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.errors import EnvironmentFault, UserError
from sweeper.executors.local import environment
from sweeper.model.find import FoundModel
from sweeper.system import devices
from sweeper.system.ask import ask, stream
from trainers.data.table import Box

PREDICTION, EXPORT = "trainers.prediction", "trainers.export"
NAME = "the model's process"


def predictions(
    model: FoundModel,
    images: Sequence[tuple[str, Box | None]],
    *,
    device: str | None = None,
    batch_size: int | None = None,
    top: int | None = None,
    answers_alone: bool = False,
    boxes: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield {"model"} with facts about the model, then a prediction per image. Raises the process's errors."""
    slot = devices.slots(device)[0]
    more = {"device": slot.device, "batch_size": batch_size, "top": top, "answers_alone": answers_alone}
    request = _request(model, slot) | more | {"boxes": boxes, "images": images}
    for found in stream("-m", PREDICTION, what=NAME, request=request, env=environment(slot)):
        _refuse(found)
        yield found


def exported(model: FoundModel, **asked: Any) -> dict[str, Any]:
    """Return the answer of `trainers.export` to the request `asked`. Raises the process's errors."""
    slot = devices.slots("cpu")[0]
    request = _request(model, slot) | asked
    found: dict[str, Any] = ask("-m", EXPORT, what=NAME, request=request, env=environment(slot))
    _refuse(found)
    return found


def _request(model: FoundModel, slot: devices.Slot) -> dict[str, Any]:
    return {
        "model": str(model.path),
        "remake": model.remake,
        "extensions": str(model.extensions),
        "threads": slot.threads,
    }


def _refuse(found: Mapping[str, Any]) -> None:
    if error := found.get("error"):
        kind = UserError if error["exit_code"] == UserError.exit_code else EnvironmentFault
        raise kind(error["what"], where=error["where"], help=error["help"])
