"""The preflight: builds every backbone of a space once, in a separate process, before any trial exists."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import DataError, Fault, UserError
from sweeper.system import ask as process
from sweeper.system import subprocesses
from sweeper.terminal.output import print_message
from trainers.config import Recipe
from trainers.support.files import write_text

if TYPE_CHECKING:
    from trainers.data.layouts import Category

MODULE = "trainers.models.preflight"
DRY_RUN = "trainers.dry_run"
REMEMBERED = 64


def preflight(
    recipes: Iterable[Recipe],
    categories: Sequence["Category"],
    *,
    cache: Path,
    images: int | None = None,
    gpus: Sequence[str] = (),
    place: Callable[[str], str] = str,
    unfetched: bool = False,
    extensions: Sequence[Path] = (),
    weights: str = "any",
) -> dict[str, int]:
    """Return the bytes of each backbone's weights, head included, where they were counted.

    Raises for recipes whose network cannot be built here (unknown backbones, missing weights, wrong sizes), and for
    GPUs, given by id, that the installed torch cannot run: UserError if all faults are the recipe's own,
    EnvironmentFault if weights, the hub or a GPU are to blame. A request that passed without notes and without the
    hub is cached in `cache` and not built again; the fake trainer has no network. `images` is the number of images to
    train on; `place` turns the name of a value, such as train.backbone, into file:line:column. With `unfetched`,
    nothing is going to train, so weights that the hub does not provide only yield a note. `weights` is the rule for
    the weights that networks may start from.
    """
    asked = list(recipes)
    if os.environ.get("SWEEP_TRAINER") == "fake" or not asked:
        return {}
    request = _request(asked, categories, images, gpus, unfetched=unfetched, extensions=extensions, weights=weights)
    memory, key = cache / "preflight.json", cache_key(request, asked)
    passed = _passed(memory)
    if key in passed:
        return passed[key]
    found = ask(request, shown=gpus)
    if faults := [one for one in found if "what" in one]:
        raise verdict(faults, place)
    notes = [one["note"] for one in found if "note" in one]
    for note in notes:
        print_message(note)
    sizes = {one["backbone"]: int(one["bytes"]) for one in found if "bytes" in one}
    if not notes and not any(recipe.train.pretrained and not recipe.train.weights for recipe in asked):
        latest = list(passed.items())[1 - REMEMBERED :]
        write_text(memory, json.dumps({**dict(latest), key: sizes}))
    return sizes


def _request(
    recipes: Sequence[Recipe],
    categories: Sequence["Category"],
    images: int | None,
    gpus: Sequence[str],
    *,
    unfetched: bool,
    extensions: Sequence[Path],
    weights: str,
) -> dict[str, Any]:
    return {
        "recipes": [recipe.model_dump(mode="json") for recipe in recipes],
        "categories": [{"name": c.name, "classes": list(c.classes)} for c in categories],
        "images": images,
        "gpus": list(gpus),
        "sizes": True,
        "unfetched": unfetched,
        "extensions": list(map(str, extensions)),
        "weights": weights,
    }


def dry_run(recipes: Sequence[Recipe], extensions: Sequence[Path]) -> None:
    """Try the definitions of extension files on a batch of real images; raise UserError with the line in the file.

    The fake trainer never calls them, so nothing is tried for it.
    """
    if not extensions or os.environ.get("SWEEP_TRAINER") == "fake":
        return
    asked = {
        "recipes": [recipe.model_dump(mode="json") for recipe in recipes],
        "extensions": list(map(str, extensions)),
    }
    found = ask(asked, module=DRY_RUN)
    if found:
        raise verdict(found)


def ask(request: object, *, module: str = MODULE, shown: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return what the module finds in `request`: faults, notes or sizes.

    If `shown` names GPUs, CUDA shows it only those.
    """
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(shown)} if shown else {}
    quiet = {} if sys.stderr.isatty() else {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {**subprocesses.environment(), **quiet, **seen}
    answer: list[dict[str, Any]] = process.ask("-m", module, what="the backbone check", request=request, env=env)
    return answer


def verdict(answer: Sequence[dict[str, Any]], place: Callable[[str], str] = str) -> UserError:
    """Return one error that names every fault and its place: UserError if all have `exit_code` 2, which stands for a
    mistake in the recipe, else DataError.
    """
    faults = [Fault(place(str(a.get("where", ""))), str(a["what"]), str(a.get("help", ""))) for a in answer]
    if any(a.get("exit_code", 3) != 2 for a in answer):
        return DataError(faults)
    first, *others = faults
    more = "".join(f"\nalso: {fault.what}" for fault in others)
    return UserError(first.what + more, where=first.where, help=first.help)


def _passed(memory: Path) -> dict[str, dict[str, int]]:
    """Return the cached sizes, keyed by request."""
    try:
        stored = json.loads(memory.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def cache_key(request: object, recipes: Sequence[Recipe]) -> str:
    """Return a hash of everything the answer depends on: the request, the libraries and the current local weights."""
    state = [json.dumps(request, sort_keys=True), *(metadata.version(name) for name in ("torch", "timm"))]
    for name in sorted({recipe.train.weights for recipe in recipes if recipe.train.weights}):
        path = Path(name)
        state += [
            f"{p} {p.stat().st_mtime_ns} {p.stat().st_size}"
            for p in (path, *path.glob("*"), *path.glob("*/*"))
            if p.exists()
        ]
    return hashlib.sha256("\0".join(state).encode()).hexdigest()[:16]
