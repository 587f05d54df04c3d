"""The parameters of a study: suggested by Optuna, listed, counted, and closed to recipes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sweeper.space import defaults, extension_keys, priors
from sweeper.space.compare import difference, filled
from sweeper.space.inside import NotInSpace, candidates
from sweeper.space.priors import Around
from sweeper.space.spec import Grid, StudySpec
from sweeper.space.tree import (
    Choice,
    Distribution,
    Node,
    Parameter,
    configurations,
    expand,
    flow,
    leaf,
    parameters,
    plain,
    size,
)
from sweeper.space.validation import checked, known_metric
from sweeper.text import join_or
from trainers.config import Recipe, TrainConfig
from trainers.data_config import Framing
from trainers.metrics.definitions import SELECTIONS
from trainers.support.errors import UserError
from trainers.support.text import did_you_mean

if TYPE_CHECKING:
    import optuna

__all__ = ["Space", "difference", "key"]

BUILT_FROM = ("backbone", "image_size", "pretrained", "weights", "head", "drop_path")
"""Keys of `train` that decide if a network can be built."""
CROPS = ("random_resized_crop", "random_shift")
"""Keys of `augment` that shrink the part of an image that training sees."""
CROPPED_BY = ("augment", "backbone", "pretrained")
"""Keys of `train` that decide those: without `augment`, the backbone's family does."""


TRIED = {"backbone", "backbone_args", "image_size", "head", "loss", "augment"}


class Space:
    """A study's `train` with its parameters.

    Their values are plain JSON by dotted name: a number, a scalar option itself, or the label of a branch.
    Parameters of a branch that is not chosen are absent.
    """

    def __init__(self, spec: StudySpec, categories: Sequence[str]) -> None:
        """Expand `per_category` by category name and validate every corner; UserError with file:line:column."""
        self._spec, self._categories = spec, list(categories)
        self._tree = expand(spec.train, categories)
        self._open = list(parameters(self._tree))
        self._refuse_ambiguous()
        self._judge()
        if isinstance(spec.search.sampler, Grid):
            self._refuse_endless()
        priors.judge(spec, self._distributions)

    # ---------------------------------------------------------------------------------- inspecting
    @property
    def names(self) -> list[str]:
        """The dotted names of all parameters, including those of branches, in the order of the file."""
        return [each.name for each in self._open]

    @property
    def size(self) -> int | None:
        """The number of configurations, or None if a parameter is continuous."""
        return size(self._tree)

    def place(self, name: str) -> str:
        """Return file:line:column of a value such as train.backbone, or its name if the file does not set it."""
        entries = self._spec.train.value
        section, _, key = name.partition(".")
        node = entries.get(key) if section == "train" and isinstance(entries, dict) else None
        if node is not None:
            return node.where
        return f"{self._spec.source}: {name}" if section == "train" else name

    @property
    def largest_image_size(self) -> int:
        """The largest image size, in pixels of the longer side."""
        return max(max(recipe.train.input_size) for recipe in self.recipes())

    @property
    def most_epochs(self) -> int:
        """The epochs of the longest training."""
        return max(self._train(closed).epochs for _, closed in self._over(lambda name: name == "epochs"))

    @property
    def is_square(self) -> bool:
        """True if every network takes square images."""
        return all(len(set(recipe.train.input_size)) == 1 for recipe in self.recipes())

    @property
    def framing(self) -> Framing:
        """The framing of all images in the cache; UserError if trials need several."""
        found = dict.fromkeys(self._train(closed).framing for _, closed in self._over(_framed))
        if len(found) > 1:
            raise UserError(
                "the images of a study are decoded in one way, but this space has several values of fit, or several"
                " aspect ratios",
                where=self.place("train.fit"),
                help="write one study for each, or fit: squash",
            )
        return next(iter(found))

    @property
    def smallest_window(self) -> float:
        """The side of the smallest window of an image that training may show, as a share of the image's side."""
        closings = self._over(lambda name: name in CROPPED_BY or any(key in name for key in CROPS))
        return min(self._train(closed).augment.smallest_window for _, closed in closings)

    def distributions(self) -> dict[str, str]:
        """Return the distributions in words, such as `uniform [0.0, 5.0]`, by dotted name of the parameter."""
        return {each.name: str(each.distribution) for each in self._open}

    def identity(self) -> dict[str, Any]:
        """Return the study's identity as JSON: data, metric, folds, train with all defaults; not budget or search."""
        data, given = self._spec.data.model_dump(mode="json"), plain(self._tree)
        parts = defaults.PARTS + (defaults.OF_WEIGHTS if self._is_described else ())
        train = filled(given, TrainConfig) | self._of_families([part for part in parts if part not in given])
        files = {file.name: file.checksum for file in self._spec.extensions}
        less = {"minimize": True} if self._spec.minimize else {}
        folds = {"search": {"folds": self._spec.search.folds}} if self._spec.search.folds else {}
        asked = {"data": data, "metric": self._spec.metric, **less, **folds, "train": train}
        return asked | ({"extensions": files} if files else {})

    @property
    def _is_described(self) -> bool:
        """True if timm's config.json lies beside local weights."""
        trains = (recipe.train for recipe in self.recipes() if recipe.train.pretrained)
        return any(defaults.described_by(train.weights, train.backbone) for train in trains)

    def _of_families(self, parts: Sequence[str]) -> dict[str, Any]:
        """Return the parts that the file leaves to the backbones' families, by backbone if there are several."""
        trains = {_family(recipe.train): recipe.train.model_dump(mode="json") for recipe in self.recipes()}
        if len(trains) == 1:
            return {part: train[part] for train in trains.values() for part in parts}
        return {part: {name: train[part] for name, train in trains.items()} for part in parts}

    # ---------------------------------------------------------------------------------- closing
    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """Return the recipe to which `params` close the space; UserError if they do not fit it."""

        def given(name: str, distribution: Distribution) -> list[Any]:
            if name not in params:
                raise UserError(f"the parameter {name} is missing", help=f"it is a {distribution}")
            if isinstance(distribution, Choice) and params[name] not in distribution.labels:
                raise UserError(
                    f"the parameter {name} cannot be {flow(params[name])}", help=f"it is a {distribution}"
                )
            return [params[name]]

        used, closed = next(configurations(self._tree, "", given))
        if unknown := [name for name in params if name not in used]:
            raise UserError(f"there is no parameter {unknown[0]} here", help=did_you_mean(unknown[0], used))
        return self._recipe(closed)

    def params(self, train: TrainConfig) -> dict[str, Any]:
        """Return the parameters that close the space to `train`, except its seed; NotInSpace if there are none."""
        wanted, why = train.model_dump(mode="json", exclude={"seed"}), list[str]()
        for params in candidates(self._tree, train.model_dump(mode="json"), "", why):
            try:
                found = self.recipe(params).train.model_dump(mode="json", exclude={"seed"})
            except UserError as error:
                why.append(error.what)
                continue
            if found == wanted:
                return params
            why += difference(wanted, found)
        raise NotInSpace(why[0])

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Draw the parameters of a trial from Optuna in the order of the file, branches after their choice."""
        params, _ = next(
            configurations(self._tree, "", lambda name, distribution: [_suggested(trial, name, distribution)])
        )
        return params

    def default(self) -> list[dict[str, Any]]:
        """Return sensible first parameters, one set per backbone: the usual values of its family, where offered."""
        return [
            defaults.parameters(self._fixed(backbone), usual)
            | ({"backbone": backbone} if "backbone" in self.names else {})
            for backbone, usual in self._families()
        ]

    def priors(self) -> dict[str, dict[str, Around]]:
        """Return the first draws of parameters, by backbone: around its family's defaults, if there are any, and
        around the values in search.prior.
        """
        written = priors.written(self._spec.search, self._distributions)
        found = {}
        for backbone, usual in self._families():
            known = defaults.known(self._fixed(backbone), usual)
            around = {name: priors.around(self._distributions[name], value) for name, value in known.items()}
            found[backbone] = (around if priors.has_default(self._spec.search) else {}) | written
        return found

    def _families(self) -> list[tuple[str, dict[str, Any]]]:
        """Return each backbone with the usual values of its family."""
        recipes = [self._recipe(closed).train for _, closed in self._over(lambda name: name == "backbone")]
        metric, mixed = self._spec.metric, self._mixes()
        return [(train.backbone, defaults.filled(_given(train), metric, mixed=mixed)) for train in recipes]

    def _mixes(self) -> bool | None:
        """True or False if the file fixes whether images are mixed; None if the search or the defaults decide."""
        augment = self._tree.value.get("augment") if isinstance(self._tree.value, dict) else None
        if augment is None or not isinstance(augment.value, dict):
            return None
        mixing = [augment.value[key] for key in defaults.MIXING if key in augment.value]
        return None if any(map(list, map(parameters, mixing))) else any(map(plain, mixing))

    @property
    def _distributions(self) -> dict[str, Distribution]:
        return {each.name: each.distribution for each in self._open}

    def _fixed(self, backbone: str) -> Node:
        """Return the tree with this backbone alone."""
        entries = self._tree.value
        if not isinstance(entries, dict):
            raise TypeError("train is a mapping")
        return replace(self._tree, value={**entries, "backbone": Node(backbone)})

    def recipes(self, *, smallest: str = "") -> Iterator[Recipe]:
        """Return one recipe per network and image size that can be reached, with everything else at its default.

        The parameter named `smallest` has its smallest value.
        """
        return (self._recipe(closed) for _, closed in self._over(_built_from, smallest=smallest))

    def dry_runs(self) -> list[Recipe]:
        """Return recipes in which parts that extension files may define take every form, each number both ends."""
        found: dict[str, Recipe] = {}
        for closed in (closed for forced in self._corners() for _, closed in self._at(forced)):
            recipe = self._recipe(closed)
            parts = recipe.train.model_dump(mode="json", include=TRIED)
            found.setdefault(json.dumps(parts, sort_keys=True), recipe)
        return list(found.values())

    def configurations(self) -> Iterator[dict[str, Any]]:
        """Yield the parameters of every configuration of a finite space; UserError at the first if it is infinite."""
        self._refuse_endless()
        for params, _ in configurations(self._tree, "", lambda _, distribution: list(distribution.values() or ())):
            yield params

    def _over(self, cornered: Callable[[str], bool], smallest: str = "") -> Iterator[tuple[dict[str, Any], Node]]:
        """Yield the default and every corner of `cornered` parameters; the one named `smallest` is at its least."""

        def options(name: str, distribution: Distribution) -> list[Any]:
            if name == smallest:
                return [min(distribution.bounds())]
            return distribution.bounds() if cornered(name) else [distribution.midpoint()]

        return configurations(self._tree, "", options)

    def _recipe(self, closed: Node) -> Recipe:
        spec = self._spec
        files = {file.name: file.checksum for file in spec.extensions}
        train = self._train(closed)
        return Recipe(
            data=spec.data,
            metric=spec.metric,
            train=train,
            derived=spec.derived,
            extensions=files,
            folds=spec.search.folds,
        )

    def _train(self, closed: Node) -> TrainConfig:
        """Return a closed tree as a config; its backbone's family supplies what it leaves out."""
        entries = closed.value if isinstance(closed.value, dict) else {}
        whole = defaults.filled(plain(closed), self._spec.metric) if entries else {}
        given = plain(closed)
        parts = {key: leaf(value) for key, value in whole.items() if key not in given or value != given[key]}
        whole_node = extension_keys.judge(replace(closed, value={**entries, **parts}), "train")
        return checked(TrainConfig, whole_node, "train")

    # ---------------------------------------------------------------------------------- validating
    def _judge(self) -> None:
        """Validate each parameter at its extremes, the others at their first value."""
        for closed in (closed for forced in self._corners() for _, closed in self._at(forced)):
            train = self._train(closed)
            self._refuse_unknown_categories(train, closed)
            self._refuse_enlarged(train, closed)
            if isinstance(closed.value, dict) and "selection" in closed.value:
                known_metric("train.selection", closed.value["selection"], SELECTIONS)

    def _corners(self) -> Iterator[Mapping[str, Any]]:
        yield {}
        for each in self._open:
            for value in each.distribution.bounds():
                yield {**each.given, each.name: value}

    def _at(self, forced: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Node]]:
        return configurations(self._tree, "", lambda name, distribution: [forced.get(name, distribution.bounds()[0])])

    def _refuse_unknown_categories(self, train: TrainConfig, closed: Node) -> None:
        for name in train.loss.category_weights or {}:
            if self._categories and name not in self._categories:
                raise UserError(
                    f"unknown category '{name}' in train.loss.category_weights",
                    where=_weight(closed, name).key,
                    help=did_you_mean(name, self._categories) or f"it can be {join_or(self._categories)}",
                )

    def _refuse_enlarged(self, train: TrainConfig, closed: Node) -> None:
        """Raise UserError if the file sets a data.size below the input size of the network."""
        side = self._spec.data.size
        if side is None or side >= max(train.input_size) or "data.size" in self._spec.derived:
            return
        entries = closed.value if isinstance(closed.value, dict) else {}
        raise UserError(
            f"train.image_size {train.image_size} is larger than data.size {side}: the images would only be enlarged",
            where=entries["image_size"].where if "image_size" in entries else str(self._spec.source),
            help="leave data.size out, so that it follows from image_size, or write a smaller image_size",
        )

    def _refuse_ambiguous(self) -> None:
        seen: dict[str, Parameter] = {}
        for each in self._open:
            if each.name in seen:
                remedy = f"the other one is at {seen[each.name].node.where}"
                raise UserError(f"two parameters are named {each.name}", where=each.node.where, help=remedy)
            seen[each.name] = each

    def _refuse_endless(self) -> None:
        endless = [each for each in self._open if each.distribution.values() is None]
        if endless:
            names = ", ".join(each.name for each in endless)
            raise UserError(
                f"a grid tries every value, but {names} has infinitely many",
                where=endless[0].node.where,
                help="write choice, int, or uniform with a step; or use another sampler",
            )


def key(params: Mapping[str, Any]) -> str:
    """Return a string that is equal for equal parameters, in whatever order they were drawn."""
    return json.dumps(params, sort_keys=True)


def _given(train: TrainConfig) -> dict[str, Any]:
    """Return the values on which the defaults of its family depend."""
    return {"backbone": train.backbone, "pretrained": train.pretrained, "epochs": train.epochs}


def _family(train: TrainConfig) -> str:
    return train.backbone if train.pretrained else f"{train.backbone} from random weights"


def _suggested(trial: "optuna.Trial", name: str, distribution: Distribution) -> Any:
    if isinstance(distribution, Choice):
        return trial.suggest_categorical(name, distribution.labels)
    if distribution.whole:
        return trial.suggest_int(
            name,
            int(distribution.low),
            int(distribution.high),
            step=int(distribution.step or 1),
            log=distribution.log,
        )
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _framed(name: str) -> bool:
    return name.split(".")[0] in ("fit", "image_size")


def _built_from(name: str) -> bool:
    return name.split(".")[0] in BUILT_FROM


def _weight(closed: Node, name: str) -> Node:
    """Return the node of the weight of a category."""
    node = closed
    for key in ("loss", "category_weights", name):
        node = node.value[key]  # type: ignore[index, call-overload, assignment]
    return node
