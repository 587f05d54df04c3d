"""Trial calls of what extension files define, on real images; `python -m trainers.dry_run` answers in JSON.

It runs in a process of its own, so that the caller never loads torch. It finds mistakes in a user's code before the
first trial exists.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers import extensions
from trainers.config import CustomHead, CustomLoss, Loss, Recipe
from trainers.data import layouts
from trainers.data.images import pillow_errors, resized
from trainers.data.table import Row, Table, class_counts, label_matrix, spans
from trainers.evaluation import field_metrics
from trainers.extensions import Definition
from trainers.loading import custom_augmentations
from trainers.metrics.definitions import definition
from trainers.models import network
from trainers.models.preflight import Problem
from trainers.optim import losses, optimizers
from trainers.support.errors import UserError
from trainers.support.files import regular
from trainers.support.leaving import leave

IMAGES, FEW = 8, 3  # images in a full and in a last, smaller batch
SEED = 0


def problems(recipes: Iterable[Recipe]) -> list[Problem]:
    """Return the faults in the code that these recipes call, each fault once."""
    asked, found = list(recipes), dict[Problem, None]()
    table = layouts.read(asked[0].data)  # all are of one study
    rows, done = _some(table), set[str]()
    for key, attempt in (one for recipe in asked for one in _attempts(recipe, table, rows)):
        try:
            if key not in done:
                attempt()
        except UserError as error:
            found[Problem(error.where, error.what, error.help, 2)] = None
        done.add(key)
    return list(found)


def _attempts(recipe: Recipe, table: Table, rows: Sequence[Row]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the checks of a recipe, each with a key of what it depends on; UserError has the place in the file."""
    train = recipe.train
    built = train.model_dump_json(include={"backbone", "backbone_args", "image_size", "progressive_resizing", "head"})
    if isinstance(train.loss, CustomLoss):
        key = train.model_dump_json(include={"loss": True, "augment": {"mixup", "cutmix"}})
        yield key, partial(_try_loss, recipe, train.loss, table, rows)
    if train.augment.custom:
        yield train.augment.model_dump_json(), partial(_try_augmentations, recipe, table, rows)
    if model := extensions.find("models", train.backbone):
        yield f"model {built}", partial(_try_model, recipe, model, table, rows)
    if isinstance(train.head, CustomHead):
        yield f"head {built}", partial(_try_head, recipe, train.head, table, rows)
    for metric in (one for name in recipe.further if (one := extensions.find("metrics", name))):
        yield metric.name, partial(_try_metric, metric, table)


def _some(table: Table) -> list[Row]:
    """Return training images spread over the table; only fully labelled ones, if there are any."""
    rows = table.split("train")
    whole = [row for row in rows if row.labels is not None and min(row.labels) >= 0] or [*rows]
    return whole[:: max(1, len(whole) // IMAGES)][:IMAGES]


def _pixels(recipe: Recipe, table: Table, rows: Sequence[Row]) -> np.ndarray:
    """Return the images at the size of the network's input, [B, H, W, 3] uint8."""
    height, width = recipe.train.input_size
    found = []
    with pillow_errors():
        for row in rows:
            content = regular(table.root / row.path).read_bytes()
            found.append(np.asarray(resized(content, (width, height), row.box, recipe.train.framing.fit)[0]))
    return np.stack(found)


def _images(recipe: Recipe, table: Table, rows: Sequence[Row]) -> Tensor:
    """Return the images as evaluation sees them, except for normalization: [B, 3, H, W] float32, 0 to 1."""
    return torch.from_numpy(_pixels(recipe, table, rows)).permute(0, 3, 1, 2).float() / 255


def _labels(table: Table, rows: Sequence[Row]) -> np.ndarray:
    found: np.ndarray = label_matrix(rows, table.categories).astype(np.int64)
    return found


def _try_augmentations(recipe: Recipe, table: Table, rows: Sequence[Row]) -> None:
    custom_augmentations.check(recipe.train.augment, _pixels(recipe, table, rows), torch.device("cpu"))


def _refuse_unequal(one: Definition, first: Any, second: Any, what: str) -> None:
    """Raise UserError if two identical calls return different results."""
    if not torch.equal(torch.as_tensor(first), torch.as_tensor(second)):
        said = f"{one.name} of {one.kind} gives {what} the second time it is called with the same input"
        raise UserError(
            said, where=one.where, help="remove the randomness, or draw it from torch after the seed is set"
        )


# ------------------------------------------------------------------------------------------------- losses
def _try_loss(recipe: Recipe, config: CustomLoss, table: Table, rows: Sequence[Row]) -> None:
    one = extensions.needed("losses", config.name)
    labels, names = _labels(table, rows), [category.name for category in table.categories]
    counts = class_counts(_labels(table, table.split("train")), table.categories)
    multi = [category.multi for category in table.categories]
    whole = [float((labels[:, span.labels] >= 0).all(1).mean()) for span in spans(table.categories)]
    sizes = [list(map(int, count)) for count in counts]
    judge = losses.build(config, names, sizes, torch.device("cpu"), multi=multi, known=whole)
    logits = torch.randn((len(rows), sum(map(len, counts))), generator=torch.Generator().manual_seed(SEED))
    _refuse_weights(recipe, one, table, logits, torch.from_numpy(labels))
    logits.requires_grad_()
    loss = judge(logits, torch.from_numpy(labels))
    if not bool(loss.isfinite().all()):
        raise UserError(
            f"the loss {one.name} is {loss.sum().item()} for random logits", where=one.where, help="keep it finite"
        )
    _refuse_no_gradient(one, loss, logits)
    judge(logits[:FEW], torch.from_numpy(labels[:FEW]))  # as the last batch of an epoch
    _refuse_unequal(one, loss.detach(), judge(logits, torch.from_numpy(labels)).detach(), "another loss")


def _refuse_no_gradient(one: Definition, loss: Tensor, logits: Tensor) -> None:
    if loss.requires_grad:
        one.called(loss.sum().backward)
    if logits.grad is None:
        advice = "compute it from the logits with torch only, without .item(), .detach() or numpy"
        raise UserError(f"the loss {one.name} has no gradient", where=one.where, help=advice)
    if not bool(logits.grad.isfinite().all()):
        advice = "clamp the argument of each logarithm, root or division"
        raise UserError(f"the gradient of the loss {one.name} is not finite", where=one.where, help=advice)


def _refuse_weights(recipe: Recipe, one: Definition, table: Table, logits: Tensor, labels: Tensor) -> None:
    """Raise UserError if a loss cannot be weighted: by class with several answers, or as one figure per batch."""
    config, augment = recipe.train, recipe.train.augment
    weighing = {
        "class_weights": config.loss.class_weights != "none",
        "sample_weight": any(row.weight != 1 for row in table.rows),
        "mixup": augment.mixup > 0,
        "cutmix": augment.cutmix > 0,
    }
    several = [category.name for category in table.categories if category.multi]
    if several and weighing["class_weights"]:
        what = f"class_weights do not apply to {several[0]}, which has several answers, in the loss {one.name}"
        raise UserError(what, where=one.where, help="leave class_weights out, and weight the classes in the loss")
    found = [key for key, there in weighing.items() if there]
    if found and _is_mean(recipe.train.loss, table, logits, labels):
        raise UserError(
            f"the loss {one.name} returns one figure for the batch, but {found[0]} weights its images",
            where=one.where,
            help=f"return one figure per image, [B], or leave {found[0]} out",
        )


def _is_mean(config: Loss, table: Table, logits: Tensor, labels: Tensor) -> bool:
    """True if a loss returns one figure for all images of a category."""
    if not isinstance(config, CustomLoss):
        return False
    judge = losses.custom(config)
    for span in spans(table.categories):
        answers = labels[:, span.labels] if span.category.multi else labels[:, span.labels.start]
        known = (labels[:, span.labels] >= 0).all(1)
        if int(known.sum()) > 1 and judge(logits[known][:, span.classes], answers[known]).stride() == (0,):
            return True
    return False


# ------------------------------------------------------------------------------------- networks and heads
def _try_model(recipe: Recipe, one: Definition, table: Table, rows: Sequence[Row]) -> None:
    config, images = recipe.train, _images(recipe, table, rows)
    torch.manual_seed(SEED)
    backbone = network.create(config)
    torch.manual_seed(SEED)
    again = network.create(config)
    for key, value in backbone.state_dict().items():
        _refuse_unequal(one, value, again.state_dict()[key], f"other weights in {key}")
    for size in {config.input_size, config.progressive_resizing.size(config.input_size, 0.0)}:
        scaled = torch.nn.functional.interpolate(images, size)
        _refuse_other_features(one, backbone, one.called(backbone.train(), scaled), len(images))
    optimizers.build(config.optimizer, backbone, torch.nn.Linear(1, 1))


def _refuse_other_features(one: Definition, backbone: Any, found: Any, count: int) -> None:
    wanted = backbone.num_features
    if not isinstance(found, Tensor) or found.shape != (count, wanted):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        what = f"the model {one.name} gives {got} for {count} images instead of [{count}, {wanted}]"
        raise UserError(what, where=one.where, help="return pooled features [B, num_features]")


def _try_head(recipe: Recipe, config: CustomHead, table: Table, rows: Sequence[Row]) -> None:
    """Try the head on a randomly initialised backbone: nothing is downloaded."""
    one, images = extensions.needed("heads", config.name), _images(recipe, table, rows)
    sizes = [len(category.classes) for category in table.categories]
    plain = recipe.train.model_copy(update={"pretrained": False, "weights": None})
    net, again = (network.build(plain, sizes) for _ in range(2))
    for key, value in net.head.state_dict().items():
        _refuse_unequal(one, value, again.head.state_dict()[key], f"other weights in {key}")
    features = net.train().backbone(images)
    found = one.called(net.head, features)
    if not isinstance(found, Tensor) or found.shape != (len(images), sum(sizes)):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        what = f"the head {one.name} gives {got} for {len(images)} images instead of [{len(images)}, {sum(sizes)}]"
        raise UserError(what, where=one.where, help="return the logits of all categories side by side")


# ------------------------------------------------------------------------------------------------ metrics
def _try_metric(one: Definition, table: Table) -> None:
    rows = table.split("val") or table.split("train")
    labels = _labels(table, rows)
    width = sum(len(category.classes) for category in table.categories)
    logits = np.random.default_rng(SEED).normal(size=(len(rows), width)).astype(np.float32)
    first, second = (
        field_metrics.figure(definition(one.name), logits, labels.copy(), table.categories) for _ in range(2)
    )
    if not math.isfinite(first):
        advice = "return a finite figure, or None for a category in which it is undefined"
        raise UserError(f"the metric {one.name} is {first} for random probabilities", where=one.where, help=advice)
    _refuse_unequal(one, first, second, "another figure")


# --------------------------------------------------------------------------------------------------- main
def main() -> None:
    """Read {"recipes", "extensions" (paths)} from stdin; write a list of problems as one line of JSON."""
    asked = json.load(sys.stdin)
    with extensions.answering() as answer:
        print(json.dumps([asdict(problem) for problem in _answers(asked)]), file=answer)


def _answers(asked: dict[str, Any]) -> Iterator[Problem]:
    try:
        extensions.load(asked["extensions"])
        yield from problems(Recipe.model_validate(recipe) for recipe in asked["recipes"])
    except UserError as error:
        yield Problem(**error.document())


if __name__ == "__main__":
    main()
    leave()
