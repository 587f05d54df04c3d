"""Hints that translate what people write out of habit, from other tools, memory or earlier versions."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from sweeper.space.spec import StudyFile
from sweeper.space.tree import flow
from trainers.config import TrainConfig
from trainers.support.errors import UserError

WORKERS = "images are decoded once, so there are no workers to set; sweep run --slots N runs trials side by side"
STOPPING = "trials are stopped early by search.pruner, such as search: {pruner: median}"
PLACE = "choose devices with sweep run --devices 0,1 or --devices cpu"
PRECISION = "train.precision is auto: bf16 or fp16 on a GPU that supports it"
SEPARATOR = "the separator and encoding of a table are detected, and reported if they are unusual"
HABITS = {
    "num_workers": WORKERS,
    "workers": WORKERS,
    "n_jobs": WORKERS,
    "early_stopping": STOPPING,
    "early_stop": STOPPING,
    "gpus": PLACE,
    "gpu": PLACE,
    "device": PLACE,
    "amp": PRECISION,
    "mixed_precision": PRECISION,
    "fp16": PRECISION,
    "model": "it is called train.backbone",
    "arch": "it is called train.backbone",
    "architecture": "it is called train.backbone",
    "learning_rate": "it is called train.optimizer.lr",
    "img_size": "it is called train.image_size",
    "input_size": "it is called train.image_size",
    "monitor": "it is called metric and stands beside train",
    "n_trials": "it is called budget.trials",
    "num_trials": "it is called budget.trials",
    "max_trials": "it is called budget.trials",
    "timeout": "it is called budget.hours and counts hours",
    "name": "it is called study",
    "image_column": "it is called data.path",
    "target_column": "it is called data.categories, a list",
    "target_columns": "it is called data.categories",
    "label_column": "it is called data.categories, a list",
    "na_values": "it is called data.missing",
    "delimiter": SEPARATOR,
    "separator": SEPARATOR,
    "sep": SEPARATOR,
    "encoding": SEPARATOR,
    "num_classes": "the classes come from the data set; there is nothing to set",
}
"""Advice for unknown keys."""

VALUES = {
    "csv": "table",
    "imagefolder": "folder",
    "image_folder": "folder",
    "f1": "macro_f1",
    "f1_macro": "macro_f1",
    "accuracy": "overall_accuracy",
    "acc": "overall_accuracy",
    "top1": "overall_accuracy",
    "balanced_accuracy": "mean_class_accuracy",
    "precision": "macro_precision",
    "recall": "macro_recall",
    "logloss": "log_loss",
    "nll": "log_loss",
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "ap": "average_precision",
    "top3": "top_3_accuracy",
    "top_k_accuracy": "top_3_accuracy",
    "kappa": "quadratic_kappa",
    "qwk": "quadratic_kappa",
    "cohen_kappa": "quadratic_kappa",
    "mcc": "matthews",
    "matthews_corrcoef": "matthews",
}
"""Unknown values, each with the one that is probably meant."""

MISSING = {
    "data": "add data: {layout: folder, root: FOLDER}; docs/reference/data.md lists the layouts",
    "root": "add root: the folder of the data set, relative to the current folder",
}
"""Advice for required keys that are missing."""

_LISTS = ("values", "value", "grid_search")
_BOUNDS = (("min", "max"), ("low", "high"), ("lower", "upper"))
_BESIDE = {*_LISTS, *(word for pair in _BOUNDS for word in pair)}
_BESIDE |= {"distribution", "type", "log", "q", "step", "probabilities"}
_CALL = re.compile(r"(?:\w+\.)*(?P<kind>\w+)\((?P<arguments>.*)\)")

RENAMED = {
    "train.optimizer.backbone_lr": "backbone_lr_scale",
    "train.augment.mixup_of": "mixup_classes",
    "train.augment.margin": "random_shift",
    "train.augment.brightness": "color_jitter.brightness",
    "train.augment.contrast": "color_jitter.contrast",
    "train.augment.saturation": "color_jitter.saturation",
    "train.augment.hue": "color_jitter.hue",
    "train.augment.rotate": "rotation",
    "train.augment.erase": "random_erasing",
    "train.augment.flip": "horizontal_flip",
    "train.schedule.floor": "min_lr_ratio",
    "train.schedule.rise": "pct_start",
    "train.optimizer.decay_norms": "decay_norm_and_bias",
    "train.balance": "balanced_sampling",
    "train.loss.over_categories": "category_reduction",
    "train.posterior": "posthoc_logit_adjustment",
    "train.average": "weight_averaging",
    "train.grow": "progressive_resizing",
    "train.thaw": "freeze",
    "keep": "keep_checkpoints",
    "goal": "metric",
    "search.pruner: patient": "early_stopping",
    "search.pruner: promotion": "asha",
    "search.pruner: successive_halving": "{name: asha, type: stopping}",
}
"""Old paths, each with the new name: the end of a path, or what is written after the colon."""

REMOVED = {
    "train.augment.crop": "write random_shift: 0.125 instead of random, random_resized_crop: {} instead of resized",
    "train.augment.min_area": "write random_resized_crop: {scale: [0.35, 1.0]}; it is the first number there",
    "train.augment.policy": "write trivial_augment: true instead of trivial, rand_augment: {} instead of rand",
    "train.augment.changes": "write rand_augment: {num_ops: 2}; it is the number there",
    "train.augment.magnitude": "write rand_augment: {magnitude: 9}, on a scale up to 30",
    "search.probe": "leave it out; search.pruner stops hopeless trials early",
    "search.sampler: cmaes": "use tpe, or gp if all parameters are numbers, or a file such as examples/cma_es.py",
    "search.sampler: nsga2": "use tpe",
    "search.pruner: hyperband": "use asha, with a larger min_epochs if trials improve slowly at first",
    "search.pruner: percentile": "use median, or asha with a reduction_factor",
}
"""Advice for paths that were removed."""


def refuse(path: str, where: str) -> None:
    """Raise UserError if `path`, such as `search.probe` or `search.pruner: patient`, was renamed or removed."""
    if path in RENAMED:
        raise UserError(f"{path} was renamed to '{RENAMED[path]}'", where=where, help="write the new name")
    if path in REMOVED:
        raise UserError(f"{path} was removed", where=where, help=REMOVED[path])


def key(name: str) -> str:
    """Return advice for an unknown key `name`: for a known habit, or the place where a key of this name belongs."""
    found = places(name)
    return HABITS.get(name) or (f"did you mean '{found[0]}'?" if found else "")


def value(text: str, known: Sequence[str]) -> str:
    """Return the value among `known` that `text` probably means, or an empty string."""
    meant = VALUES.get(text.lower(), "")
    return meant if meant in known else ""


def places(name: str) -> list[str]:
    """Return the dotted paths of all keys of this name in a search space, those nearest to the top first."""
    return [path for path in paths() if path.split(".")[-1] == name]


def paths() -> list[str]:
    """Return the dotted paths of all keys of a search space, those nearest to the top first."""
    whole = {*_paths(StudyFile, ""), *_paths(TrainConfig, "train")}
    return sorted(whole, key=lambda path: (path.count("."), path))


def _paths(model: type[BaseModel], above: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{above}.{name}" if above else name
        yield path
        for part in parts(field.annotation):
            yield from _paths(part, path)


def tag(model: type[BaseModel]) -> str | None:
    """Return the name that identifies a part among its kind; None if it has none or comes from an extension file."""
    field = model.model_fields.get("name")
    return field.default if field and not field.is_required() else None


def parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation names, including members of unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for member in get_args(annotation):
        yield from parts(member)


# ---------------------------------------------------------------------------------------- distributions
def opening(given: Any) -> str:
    """Return the distribution that a mapping of another tool or a list means, as written here, or an empty string."""
    if isinstance(given, list):
        return choice(given) if given else ""
    if not isinstance(given, dict) or not given.keys() <= _BESIDE:
        return ""
    for name in _LISTS:
        if name in given:
            return choice(given[name]) if isinstance(given[name], list) else flow(given[name])
    step = given.get("q", given.get("step"))
    logarithmic = given.get("log") is True or "log" in str(given.get("distribution", given.get("type", "")))
    for low, high in _BOUNDS:
        if low in given and high in given:
            return between(given[low], given[high], step=step, logarithmic=logarithmic)
    return ""


def called(text: str) -> str:
    """Return the distribution that a call such as tune.loguniform(1e-4, 1e-1) means, or an empty string."""
    found = _CALL.fullmatch(text.strip())
    arguments = _arguments(found["arguments"]) if found else []
    if found is None or not arguments:
        return ""
    kind, first = found["kind"], arguments[0]
    if kind in ("choice", "grid_search", "sample_from", "categorical"):
        return choice(first if isinstance(first, list) else arguments)
    if len(arguments) < 2 or not all(isinstance(one, int | float) for one in arguments):
        return ""
    low, high, step = arguments[0], arguments[1], arguments[2] if kind.startswith("q") and arguments[2:] else None
    if "randint" in kind and "q" not in kind:
        high -= 1  # Ray and numpy exclude the upper end
    return between(low, high, step=step, logarithmic="log" in kind)


def _arguments(text: str) -> list[Any]:
    """Return the plain values between the parentheses of a call; none if there is anything else."""
    try:
        return list(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []


def choice(values: list[Any]) -> str:
    return f"{{choice: {flow(values)}}}"


def between(low: Any, high: Any, *, step: Any = None, logarithmic: bool = False) -> str:
    """Return a range on the scale that its bounds suggest, of whole numbers if they are whole; 0 to 1 is real."""
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    whole = isinstance(low, int) and isinstance(high, int) and high > 1
    log = numbers and low > 0 and (logarithmic or (not whole and high >= 20 * low)) and not step
    kind = ("logint" if log else "int") if whole else ("loguniform" if log else "uniform")
    return f"{{{kind}: {flow([low, high])}{f', step: {flow(step)}' if step else ''}}}"


def name(text: str) -> str:
    """Return the valid study name that is nearest to `text`, or an empty string."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-.")[:64]
