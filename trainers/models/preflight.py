"""Checks that the networks of recipes can be built here; `python -m trainers.models.preflight` answers in JSON.

It runs in a process of its own, so that the caller never loads torch. Nothing is trained and no weights are
initialised: networks are built without allocating memory ("meta"). Published weights that are not cached yet are
downloaded, so that no trial waits for them.
"""

import difflib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from trainers import extensions
from trainers.config import CustomHead, LinearHead, Query2Label, Recipe, TrainConfig
from trainers.models import heads, hub, majority, network
from trainers.models.foreign_weights import Weights
from trainers.optim import optimizers
from trainers.support import device, weights_folder
from trainers.support.errors import UserError
from trainers.support.leaving import leave

SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
SCRATCH = "train from random weights with --set train.pretrained=false"
OTHERS = re.compile(
    r"in(w?21|22|12)k|jft|ig\d|yfcc|laion|openai|clip|dfn|webli|swag|seer|ssld|wsl|m3\dm|lvd|merged|bamboo|florence"
)
"""Training data beyond ImageNet-1k, as marked in the names of timm's weights."""


@dataclass(frozen=True)
class Problem:
    """A reason that a recipe cannot run: `exit_code` 2 for a mistake in the recipe, 3 for something missing here."""

    where: str
    what: str
    help: str
    exit_code: int


def problems(recipes: Iterable[Recipe], images: int | None = None) -> list[Problem]:
    """Return everything that keeps these recipes' networks from being built and trained, each problem once.

    images: the number of training images, if known. The model hub is not queried here.
    """
    found: dict[Problem, None] = {}
    for recipe in recipes:
        config = recipe.train
        own = extensions.find("models", config.backbone) is not None  # the dry run tries it on real images
        built = (_made,) if own else (_name, _size, _growing)
        looks = (*built, _head, lambda config: _lone(config, images), _weights, _compiler)
        if problem := next(filter(None, (look(config) for look in looks)), None):
            found[problem] = None
    return list(found)


def notes(recipes: Iterable[Recipe]) -> list[str]:
    """Return what was chosen or left out when local weights were read, each note once."""
    found: dict[str, None] = {}
    for config in (recipe.train for recipe in recipes):
        path = network.weights_file(config) if config.pretrained else None
        if path is not None:
            found |= dict.fromkeys(f"{path}: {note}" for note in _fitted(config, path).notes)
    return list(found)


def absent(recipes: Iterable[Recipe]) -> list[Problem]:
    """Return one problem that names all backbones whose published weights are neither here nor on the hub."""
    published = [r.train for r in recipes if r.train.pretrained and not r.train.weights]
    found = {config.backbone: why for config in published if (why := not_given(config.backbone))}
    if not found:
        return []
    names, reasons = ", ".join(found), "; ".join(dict.fromkeys(found.values()))
    return [
        Problem(
            "train.backbone",
            f"the weights of {names} are not on this machine, and the model hub does not provide them ({reasons})",
            "give a folder of weights with --weights DIR or a file with --set train.weights=PATH, copy the hub's"
            f" cache from a machine with network access (HF_HOME names its folder), or {SCRATCH}",
            3,
        )
    ]


def forbidden(recipes: Iterable[Recipe], rule: str) -> list[Problem]:
    """Return the starting weights that `rules.weights` does not allow, each problem once."""
    pretrained = [recipe.train for recipe in recipes if recipe.train.pretrained]
    found = {_forbidden(config, rule): None for config in pretrained} if rule != "any" else {}
    return [problem for problem in found if problem]


def _forbidden(config: TrainConfig, rule: str) -> Problem | None:
    if rule == "none":
        what = f"rules.weights: none allows no published weights, but {config.backbone} starts from them"
        return Problem("train.backbone", what, SCRATCH, 2)
    if config.weights or (tag := _tag(config)) is None:
        return None
    if "in1k" in tag.split("_") and not OTHERS.search(tag):
        return None
    architecture = config.backbone.partition(".")[0]
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    allowed = [f"{architecture}.{one}" for one in tags if "in1k" in one.split("_") and not OTHERS.search(one)]
    advice = f"allowed are {', '.join(allowed[:4])}" if allowed else f"choose another backbone, or {SCRATCH}"
    what = f"rules.weights: in1k allows only weights of ImageNet-1k, but those of {config.backbone} are {tag!r}"
    return Problem("train.backbone", what, advice, 2)


def _tag(config: TrainConfig) -> str | None:
    """Return timm's tag of the published weights; None for a model that has none."""
    known = None if extensions.find("models", config.backbone) else timm.get_pretrained_cfg(config.backbone)
    return known.tag or "" if known is not None and known.has_weights else None


def unjudged(recipes: Iterable[Recipe], rule: str) -> list[str]:
    """Return notes on the local weights files for which the rule cannot be checked."""
    files = dict.fromkeys(recipe.train.weights for recipe in recipes if recipe.train.pretrained)
    said = "rules.weights: in1k cannot be checked for {}: make sure that you know what they were trained on"
    return [said.format(name) for name in files if name] if rule == "in1k" else []


def _name(config: TrainConfig) -> Problem | None:
    architecture, _, tag = config.backbone.partition(".")
    if not timm.is_model(architecture):
        near = alike(architecture)
        all_names = "python -c 'import timm; print(*timm.list_models())' lists all models"
        advice = f"did you mean {' or '.join(map(repr, near))}?" if near else all_names
        return Problem("train.backbone", f"timm has no model {architecture!r}", advice, 2)
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=6, cutoff=0.3) or tags[:6]
        advice = f"it has {', '.join(near)}" if near else "leave the part after the dot out"
        return Problem("train.backbone", f"{architecture!r} has no weights named {tag!r}", advice, 2)
    return None


def alike(architecture: str) -> list[str]:
    """Return up to three timm names close to one as papers write it, such as ViT-B/16 or Swin-T."""
    known, plain = timm.list_models(), re.sub(r"[-/ ]", "_", architecture.lower())
    whole = re.sub(
        r"_([tsblhg])_?(\d*)(?=_|$)", lambda m: f"_{SIZES[m[1]]}" + (f"_patch{m[2]}" if m[2] else ""), plain
    )
    for text in (plain, whole):
        longer = [name for name in known if name == text or name.startswith(f"{text}_")]
        if longer:
            return sorted(longer, key=lambda name: ("224" not in name and name != text, len(name)))[:1]
    return difflib.get_close_matches(plain, known, n=3, cutoff=0.5)


def _made(config: TrainConfig) -> Problem | None:
    """Check that a model from an extension file can be constructed and has a unique name."""
    one = extensions.needed("models", config.backbone)
    if timm.is_model(config.backbone):
        what = f"the name {one.name} of models is taken: timm has a model {one.name}"
        return Problem(one.where, what, "give yours another name", 2)
    try:
        network.create(config)
    except UserError as error:
        return Problem(**error.document())
    return None


def _size(config: TrainConfig) -> Problem | None:
    """Build the backbone without allocating memory and pass empty images of the recipe's size through it."""
    try:
        _through(config, config.input_size)
    except NotImplementedError:
        return None  # an operation without a meta kernel: the first trial will show
    except TypeError as error:
        if (
            config.drop_path is not None
            and "drop_path" in str(error)
            and "drop_path_rate" not in config.backbone_args
        ):
            return Problem("train.drop_path", f"{config.backbone} has no drop path", "leave drop_path out", 2)
        return Problem("train.backbone_args", f"{config.backbone}: {_line(error)}", "check backbone_args", 2)
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        fits = _fitting(config)
        advice = (
            f"sizes that fit: {', '.join(map(str, fits))}"
            if fits
            else "try the size that its weights were trained with"
        )
        what = f"{config.backbone} cannot take images of {config.image_size} pixels: {_line(error)}"
        return Problem("train.image_size", what, advice, 2)
    return None


def _growing(config: TrainConfig) -> Problem | None:
    """Check that the backbone also takes the smaller images of the first epochs."""
    smallest = config.progressive_resizing.size(config.input_size, 0.0)
    if smallest == config.input_size:
        return None
    try:
        _through(config, smallest)
    except NotImplementedError:
        return None
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        what = f"{config.backbone} cannot take the {_pixels(smallest)} pixels of the first epochs: {_line(error)}"
        return Problem(
            "train.progressive_resizing", what, "leave progressive_resizing out, or give it a larger start", 2
        )
    return None


def _through(config: TrainConfig, size: tuple[int, int]) -> None:
    """Pass images of this size through the backbone, pooled, whatever the head; raises what timm raises."""
    plain = config.model_copy(update={"head": LinearHead()})
    with torch.device("meta"), torch.inference_mode():
        network.create(plain).eval()(torch.empty(2, 3, *size))


def _pixels(size: tuple[int, int]) -> str:
    height, width = size
    return f"{height}" if height == width else f"{height} x {width}"


def _fitting(config: TrainConfig) -> list[int]:
    """Return up to three sizes near the requested one that the backbone does take."""
    fits: list[int] = []
    for size in _near(max(config.input_size))[:24]:
        with suppress(Exception):  # try the next size
            _through(config.model_copy(update={"image_size": size}), (size, size))
            fits.append(size)
        if len(fits) == 3:
            break
    return sorted(fits)


def _near(size: int) -> list[int]:
    """Return sides that patches of 4 to 32 pixels, or of 14, may fill: all of those nearby, fewer farther away."""
    close = {side for side in range(max(16, size - 32), size + 33) if side % 4 == 0 or side % 14 == 0}
    return sorted(close.union(range(32, 1025, 32)) - {size}, key=lambda side: abs(side - size))


def _head(config: TrainConfig) -> Problem | None:
    needed = heads.need(config.head)
    if needed != "features" and extensions.find("models", config.backbone):
        fits = ", ".join(name for name, need in heads.NEEDS.items() if need == "features")
        what = f"{config.backbone} gives pooled features, but the head {config.head.name} needs its {needed}"
        return Problem("train.head", what, f"heads that fit: {fits}, or one of your own", 2)
    if isinstance(config.head, Query2Label):
        return _query2label(config, config.head)
    default = timm.get_pretrained_cfg(config.backbone)
    if needed == "logits" and default is not None and default.num_classes == 0:
        fits = ", ".join(name for name, need in heads.NEEDS.items() if need != "logits")
        what = f"{config.backbone} has no class scores of its own, which the head {config.head.name} needs"
        return Problem("train.head", what, f"heads that fit: {fits}", 2)
    return None


def _query2label(config: TrainConfig, head: Query2Label) -> Problem | None:
    if head.width % head.heads:
        fits = ", ".join(str(count) for count in range(1, 17) if head.width % count == 0)
        what = f"a width of {head.width} cannot be divided among {head.heads} attention heads"
        return Problem("train.head.heads", what, f"numbers that fit: {fits}", 2)
    try:
        with torch.device("meta"), torch.inference_mode():
            backbone = network.create(config).eval()
            found = backbone(torch.empty(2, 3, *config.input_size))
            network.head(config, backbone, [2]).eval()(found)
    except NotImplementedError:
        return None
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        what = f"{config.backbone} gives no map that the head query2label could use: {_line(error)}"
        return Problem("train.head", what, "choose another head, such as linear or category_mlp", 2)
    return None


def _lone(config: TrainConfig, images: int | None) -> Problem | None:
    """Check that no batch norm would see a single value per channel, which has no variance: batches of one image."""
    own = isinstance(config.head, CustomHead) or extensions.find("models", config.backbone)
    if own or min(config.batch_size, images or config.batch_size) > 1:
        return None
    try:
        _trained_on_one(config)
    except NotImplementedError:
        return None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        what = f"a batch norm of {config.backbone} with the head {config.head.name} cannot learn from one image"
        if config.batch_size > 1:
            return Problem("data", f"there is only one image to train on, and {what}", "add images to train", 3)
        advice = "write batch_size: 2 or more, such as 32"
        return Problem("train.batch_size", f"batches of one image: {what} at a time", advice, 2)
    return None


def _trained_on_one(config: TrainConfig) -> None:
    """Pass one image through the network as trained in its last epoch, without memory; raises what torch raises."""
    size = config.progressive_resizing.size(config.input_size, 0.0)
    with torch.device("meta"):
        backbone = network.create(config)
        head = network.head(config, backbone.train(), [2]).train()
        learning = optimizers.learning(config.freeze, config.epochs - 1)
        optimizers.thaw(backbone, learning, optimizers.frozen_names(backbone))
        head(backbone(torch.empty(1, 3, *size)))  # a Network's autocast does not support "meta"


def _compiler(config: TrainConfig) -> Problem | None:
    """Check for a compiler: torch.compile generates C++, for a GPU the code that calls its kernels."""
    named = os.environ.get("CXX")
    programs = [shlex.split(named)[0]] if named else ["g++", "clang++"]
    if not config.compile or any(map(shutil.which, programs)):
        return None
    advice = "install g++, name one with CXX, or leave compile out"
    return Problem("train.compile", f"there is no C++ compiler here ({named or 'g++'})", advice, 3)


def _weights(config: TrainConfig) -> Problem | None:
    if config.backbone == majority.NAME:
        return None
    if not config.pretrained:
        what = "pretrained is false, so the weights would not be read"
        return Problem("train.weights", what, "leave one of the two out", 2) if config.weights else None
    try:
        path = network.weights_file(config)
        if path is not None:
            return _local(config, path)
    except UserError as error:
        return Problem(**error.document())
    return _published(config)


def _local(config: TrainConfig, path: Path) -> Problem | None:
    if not path.exists():
        there = weights_folder.names(config.weights or "")
        has = f"the folder has {', '.join(there[:6])}; use one of these as train.backbone, " if there else ""
        advice = f"{has}give a weights file with --set train.weights=PATH, or {SCRATCH}"
        return Problem("train.weights", f"there are no weights at {str(path)!r} for {config.backbone}", advice, 3)
    if problem := _of_another(config):
        return problem
    _fitted(config, path)
    return None


def _of_another(config: TrainConfig) -> Problem | None:
    """Check that config.json beside the weights does not name another architecture."""
    beside = weights_folder.find(config.weights or "", config.backbone).config
    named = weights_folder.config(beside).architecture if beside else ""
    if named in ("", config.backbone.partition(".")[0]):
        return None
    what = f"the weights in {str(beside and beside.parent)!r} are for {named}, not for {config.backbone}"
    return Problem("train.backbone", what, f"write backbone: {named}, or give other weights", 2)


def _fitted(config: TrainConfig, path: Path) -> Weights:
    with torch.device("meta"):
        backbone = network.create(config)
    return network.fitting(backbone, path)


def _published(config: TrainConfig) -> Problem | None:
    if extensions.find("models", config.backbone):
        return None  # its weights were checked when the space was read
    default = timm.get_pretrained_cfg(config.backbone)
    if default is None or not default.has_weights:
        advice = f"set train.weights to a local weights file, or {SCRATCH}"
        return Problem("train.backbone", f"timm has no published weights for {config.backbone}", advice, 2)
    return None


def not_given(backbone: str) -> str:
    """Return why a backbone's weights are unavailable from the hub, or nothing; downloads them to find out."""
    default = timm.get_pretrained_cfg(backbone)
    if default is None or not default.hf_hub_id:
        return ""
    return hub.missing(default.hf_hub_id, default.hf_hub_filename or "model.safetensors")


def sizes(recipes: Iterable[Recipe], classes: Sequence[int]) -> dict[str, int]:
    """Return the bytes of each backbone's weights, with the largest head that the recipes put on it, [K] classes.

    Backbones that cannot be built without allocating memory are left out.
    """
    found: dict[str, int] = {}
    for recipe in recipes:
        with suppress(NotImplementedError):
            found[recipe.train.backbone] = max(found.get(recipe.train.backbone, 0), _bytes(recipe.train, classes))
    return found


def _bytes(config: TrainConfig, classes: Sequence[int]) -> int:
    own = isinstance(config.head, CustomHead) or extensions.find("models", config.backbone)
    with torch.device("cpu" if own else "meta"):  # a user's constructor need not work on "meta"
        backbone = network.create(config)
        parts = [backbone, network.head(config, backbone, classes)]
    return sum(t.numel() * t.element_size() for part in parts for t in part.state_dict().values())


def gpus(asked: Sequence[str]) -> list[Problem]:
    """Return the problems of the requested GPUs, which must be the only ones that CUDA shows."""
    if not asked:
        return []
    if torch.version.cuda is None and torch.version.hip is None:
        what = f"there is a GPU, but this torch ({torch.__version__}) is built for CPUs only"
        return [Problem("--devices", what, "install a torch with CUDA, or choose --devices cpu", 3)]
    if (usable := torch.cuda.device_count()) < len(asked):
        what = f"the driver lists {len(asked)} GPUs, but torch {torch.__version__} can use {usable}"
        return [Problem("--devices", what, "update the driver, or choose --devices cpu", 3)]
    found = []
    for number in range(len(asked)):
        name, capability = torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number)
        if why := device.unsupported(capability, torch.cuda.get_arch_list()):
            advice = "install a torch built for it, choose another GPU with --devices, or choose --devices cpu"
            found.append(Problem("--devices", f"{name} cannot be used: {why}", advice, 3))
    return found


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def main() -> None:
    """Answer {"recipes", "images", "gpus", "categories", "sizes", "unfetched", "extensions", "weights"} in JSON.

    The answer is a list of problems or, if there are none, of notes, {"note"} each, and of sizes if requested,
    {"backbone", "bytes"} each. unfetched: weights that the hub does not provide become notes only.
    """
    asked = json.load(sys.stdin)
    extensions.load(asked.get("extensions", []))
    recipes = [Recipe.model_validate(recipe) for recipe in asked["recipes"]]
    with extensions.answering() as answer:
        found = [*gpus(asked.get("gpus", [])), *problems(recipes, asked.get("images"))]
        missing = absent(recipes)
        if not asked.get("unfetched"):
            found += missing
        if all(problem.exit_code != 2 for problem in found):
            found = forbidden(recipes, asked.get("weights", "any")) or found
        print(json.dumps([asdict(problem) for problem in found] or _answer(asked, recipes, missing)), file=answer)


def _answer(asked: dict[str, Any], recipes: Sequence[Recipe], missing: Sequence[Problem]) -> list[dict[str, Any]]:
    said = [*notes(recipes), *unjudged(recipes, asked.get("weights", "any"))]
    said += [f"{one.what}; until they are there, weights are random" for one in missing]
    classes = [len(category["classes"]) for category in asked.get("categories", [])]
    counted = sizes(recipes, classes) if asked.get("sizes") else {}
    each = [{"backbone": name, "bytes": count} for name, count in counted.items()]
    return [*({"note": note} for note in said), *each]


if __name__ == "__main__":
    main()
    leave()
