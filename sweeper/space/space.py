"""The open values of a study: suggested by Optuna, listed, counted, and closed to recipes."""

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
from sweeper.text import did_you_mean, join_or
from trainers.config import Recipe, TrainConfig
from trainers.data_config import Framing
from trainers.metrics.definitions import SELECTIONS
from trainers.support.errors import UserError

if TYPE_CHECKING:
    import optuna

__all__ = ["Space", "difference", "key"]

BUILT_FROM = ("backbone", "image_size", "pretrained", "weights", "head", "drop_path")
"""Keys of `train` on which it depends whether a network can be built."""
CROPS = ("random_resized_crop", "random_shift")
"""Keys of `augment` that make what training sees of an image smaller."""
CROPPED_BY = ("augment", "backbone", "pretrained")
"""Keys of `train` on which those depend: without `augment` the backbone's family has its own."""


TRIED = {"backbone", "backbone_args", "image_size", "head", "loss", "augment"}


class Space:
    """A study's `train` with its open values.

    Parameters are plain JSON values by dotted name: a number, a scalar choice itself, a branch's label. Those of
    a branch that is not chosen are absent.
    """

    def __init__(self, spec: StudySpec, categories: Sequence[str]) -> None:
        """Expand `per_category` by category name and judge every corner; UserError with file:line:column."""
        self._spec, self._categories = spec, list(categories)
        self._tree = expand(spec.train, categories)
        self._open = list(parameters(self._tree))
        self._refuse_ambiguous()
        self._judge()
        if isinstance(spec.search.sampler, Grid):
            self._refuse_endless()
        priors.judge(spec, self._distributions)

    # ---------------------------------------------------------------------------------- looking
    @property
    def names(self) -> list[str]:
        """Dotted names of all open values, those of branches included, in the order of the file."""
        return [each.name for each in self._open]

    @property
    def size(self) -> int | None:
        """Number of configurations, or None when a value is continuous."""
        return size(self._tree)

    def place(self, name: str) -> str:
        """file:line:column of a value such as train.backbone; what is no value of the file stays as it is."""
        entries = self._spec.train.value
        section, _, key = name.partition(".")
        node = entries.get(key) if section == "train" and isinstance(entries, dict) else None
        if node is not None:
            return node.where
        return f"{self._spec.source}: {name}" if section == "train" else name

    @property
    def largest_image_size(self) -> int:
        """Of the longer side."""
        return max(max(recipe.train.input_size) for recipe in self.recipes())

    @property
    def is_square(self) -> bool:
        """Whether every network takes squares."""
        return all(len(set(recipe.train.input_size)) == 1 for recipe in self.recipes())

    @property
    def framing(self) -> Framing:
        """How the cache has the images of every trial; UserError where trials want it in several ways."""
        found = dict.fromkeys(self._train(closed).framing for _, closed in self._over(_framed))
        if len(found) > 1:
            raise UserError(
                "the images of a study are decoded in one way, and this space has several values of fit, or sizes of"
                " several aspects",
                where=self.place("train.fit"),
                help="write a study for each, or fit: squash",
            )
        return next(iter(found))

    @property
    def smallest_window(self) -> float:
        """Side of the smallest window of an image that training may show, as a share of the image's side."""
        closings = self._over(lambda name: name in CROPPED_BY or any(key in name for key in CROPS))
        return min(self._train(closed).augment.smallest_window for _, closed in closings)

    def distributions(self) -> dict[str, str]:
        """Each open value in words, such as `uniform [0.0, 5.0]`, by dotted name."""
        return {each.name: str(each.distribution) for each in self._open}

    def identity(self) -> dict[str, Any]:
        """What the study asks, as JSON: data, metric, folds, and train with all defaults. Budget and search aside."""
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
        """Whether timm's config.json lies beside local weights."""
        trains = (recipe.train for recipe in self.recipes() if recipe.train.pretrained)
        return any(defaults.described_by(train.weights, train.backbone) for train in trains)

    def _of_families(self, parts: Sequence[str]) -> dict[str, Any]:
        """The parts that the file leaves to the backbones' families, by backbone where there are several."""
        trains = {_family(recipe.train): recipe.train.model_dump(mode="json") for recipe in self.recipes()}
        if len(trains) == 1:
            return {part: train[part] for train in trains.values() for part in parts}
        return {part: {name: train[part] for name, train in trains.items()} for part in parts}

    # ---------------------------------------------------------------------------------- closing
    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe that `params` close the space to; UserError when they do not fit it."""

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
            raise UserError(f"there is no open value {unknown[0]} here", help=did_you_mean(unknown[0], used))
        return self._recipe(closed)

    def params(self, train: TrainConfig) -> dict[str, Any]:
        """The parameters that close the space to `train`, its seed aside; raises NotInSpace where there are none."""
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
        """The parameters of one trial, asked of Optuna in the order of the file, branches after their choice."""
        params, _ = next(
            configurations(self._tree, "", lambda name, distribution: [_suggested(trial, name, distribution)])
        )
        return params

    def default(self) -> list[dict[str, Any]]:
        """Sensible parameters to begin with, one set a backbone: what its family usually has, as far as offered."""
        return [
            defaults.parameters(self._fixed(backbone), usual)
            | ({"backbone": backbone} if "backbone" in self.names else {})
            for backbone, usual in self._families()
        ]

    def priors(self) -> dict[str, dict[str, Around]]:
        """Where the first draws of open values lie, by backbone: around its family's defaults, as far as there are
        any, and around what search.prior says.
        """
        written = priors.written(self._spec.search, self._distributions)
        found = {}
        for backbone, usual in self._families():
            known = defaults.known(self._fixed(backbone), usual)
            around = {name: priors.around(self._distributions[name], value) for name, value in known.items()}
            found[backbone] = (around if priors.has_default(self._spec.search) else {}) | written
        return found

    def _families(self) -> list[tuple[str, dict[str, Any]]]:
        """Each backbone, and what its family usually has."""
        recipes = [self._recipe(closed).train for _, closed in self._over(lambda name: name == "backbone")]
        return [(train.backbone, defaults.filled(_given(train), self._spec.metric)) for train in recipes]

    @property
    def _distributions(self) -> dict[str, Distribution]:
        return {each.name: each.distribution for each in self._open}

    def _fixed(self, backbone: str) -> Node:
        """The tree with this backbone alone."""
        entries = self._tree.value
        if not isinstance(entries, dict):
            raise TypeError("train is a mapping")
        return replace(self._tree, value={**entries, "backbone": Node(backbone)})

    def recipes(self, *, smallest: str = "") -> Iterator[Recipe]:
        """One recipe for each network and image size that can be reached, the rest at its default.

        The value called `smallest` is at its smallest.
        """
        return (self._recipe(closed) for _, closed in self._over(_built_from, smallest=smallest))

    def dry_runs(self) -> list[Recipe]:
        """Recipes in which a part that an extension file may define takes every form, each number both ends."""
        found: dict[str, Recipe] = {}
        for closed in (closed for forced in self._corners() for _, closed in self._at(forced)):
            recipe = self._recipe(closed)
            parts = recipe.train.model_dump(mode="json", include=TRIED)
            found.setdefault(json.dumps(parts, sort_keys=True), recipe)
        return list(found.values())

    def configurations(self) -> Iterator[dict[str, Any]]:
        """The parameters of every configuration of a finite space; UserError at the first when it is not finite."""
        self._refuse_endless()
        for params, _ in configurations(self._tree, "", lambda _, distribution: list(distribution.values() or ())):
            yield params

    def _over(self, cornered: Callable[[str], bool], smallest: str = "") -> Iterator[tuple[dict[str, Any], Node]]:
        """The default, and every corner of those open values; of the one named `smallest` the least."""

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
        """A closed tree as a config, what it leaves out from its backbone's family."""
        entries = closed.value if isinstance(closed.value, dict) else {}
        whole = defaults.filled(plain(closed), self._spec.metric) if entries else {}
        given = plain(closed)
        parts = {key: leaf(value) for key, value in whole.items() if key not in given or value != given[key]}
        whole_node = extension_keys.judge(replace(closed, value={**entries, **parts}), "train")
        return checked(TrainConfig, whole_node, "train")

    # ---------------------------------------------------------------------------------- judging
    def _judge(self) -> None:
        """Validate each open value at its extremes, the others at their first."""
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
        """A side that somebody wrote for the decoded images must not be below what the network takes."""
        side = self._spec.data.size
        if side is None or side >= max(train.input_size) or "data.size" in self._spec.derived:
            return
        entries = closed.value if isinstance(closed.value, dict) else {}
        raise UserError(
            f"train.image_size {train.image_size} is more than data.size {side}: the images would only be enlarged",
            where=entries["image_size"].where if "image_size" in entries else str(self._spec.source),
            help="leave data.size out, and it follows from image_size; or write a smaller image_size",
        )

    def _refuse_ambiguous(self) -> None:
        seen: dict[str, Parameter] = {}
        for each in self._open:
            if each.name in seen:
                remedy = f"the other one: {seen[each.name].node.where}"
                raise UserError(f"two open values are named {each.name}", where=each.node.where, help=remedy)
            seen[each.name] = each

    def _refuse_endless(self) -> None:
        endless = [each for each in self._open if each.distribution.values() is None]
        if endless:
            names = ", ".join(each.name for each in endless)
            raise UserError(
                f"a grid tries every value, and {names} has no end of them",
                where=endless[0].node.where,
                help="write choice, int, or uniform with a step; or take another sampler",
            )


def key(params: Mapping[str, Any]) -> str:
    """Equal for equal parameters, in whatever order they were drawn."""
    return json.dumps(params, sort_keys=True)


def _given(train: TrainConfig) -> dict[str, Any]:
    """What the defaults of its family depend on."""
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
    """Where the weight of a category stands."""
    node = closed
    for key in ("loss", "category_weights", name):
        node = node.value[key]  # type: ignore[index, call-overload, assignment]
    return node
