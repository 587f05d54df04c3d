"""The first draws of parameters: near a default, or near a value in `search.prior`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NoReturn

from sweeper.space.inside import beyond
from sweeper.space.spec import GP, TPE, CustomSampler, Grid, Prior, Search, StudySpec
from sweeper.space.tree import Choice, Distribution, Node, Range, flow
from sweeper.text import join_or
from trainers.support.errors import UserError
from trainers.support.text import did_you_mean

FACTOR, SPREAD, SHARE = 3.0, 0.2, 0.5  # times around; share of a linear range; share of the draws of a choice
LEAST = 1e-12  # the smallest probability with a quantile
WIDTHS = {"loguniform": "factor", "logint": "factor", "uniform": "spread", "int": "spread"}


@dataclass(frozen=True)
class Around:
    """The draws of a parameter: from a range, by a normal distribution truncated to it; from a choice, one option
    more often than the others.

    `width` is a standard deviation, that of the natural logarithm on a logarithmic scale. For a choice, it is the
    share of `middle`.
    """

    distribution: Distribution
    middle: Any
    width: float

    def quantile(self, share: float) -> Any:
        """Return the value below which this share of the draws lies, from 0 to 1; a choice starts with `middle`."""
        if isinstance(self.distribution, Choice):
            return self._option(self.distribution, share)
        return _value(self.distribution, self.middle, self.width, share)

    def _option(self, distribution: Choice, share: float) -> Any:
        others = [label for label in distribution.labels if not _same(label, self.middle)]
        if share < self.width or not others:
            return self.middle
        return others[min(int((share - self.width) / (1 - self.width) * len(others)), len(others) - 1)]


def _value(distribution: Range, middle: float, width: float, share: float) -> float:
    half = (distribution.step or 1 if distribution.whole else distribution.step or 0) / 2
    low, high = distribution.low - half, distribution.high + half  # so that the ends are drawn like any other value
    if distribution.log:
        low, high, middle = math.log(low), math.log(high), math.log(middle)
    bell = NormalDist(middle, width)
    below, above = bell.cdf(low), bell.cdf(high)
    found = bell.inv_cdf(min(max(below + share * (above - below), LEAST), 1 - LEAST))
    return distribution.near(math.exp(found) if distribution.log else found)


def around(distribution: Distribution, middle: Any, given: Prior | None = None) -> Around:
    """Return draws near `middle`, with the usual width or that of `given`."""
    if isinstance(distribution, Choice):
        label = next(label for label in distribution.labels if _same(label, middle))
        return Around(distribution, label, given.share if given and given.share else SHARE)
    if distribution.log:
        return Around(distribution, middle, math.log(given.factor if given and given.factor else FACTOR))
    least = distribution.step or 1 if distribution.whole else 0.0
    usual = max(least, SPREAD * (distribution.high - distribution.low))
    return Around(distribution, middle, given.spread if given and given.spread else usual)


def written(search: Search, known: Mapping[str, Distribution]) -> dict[str, Around]:
    """Return the draws that search.prior sets, by name of the parameter."""
    given = {} if search.prior == "off" else search.prior
    return {name: around(known[name], one.around, one) for name, one in given.items()}


def has_default(search: Search) -> bool:
    """True if parameters that search.prior does not name are drawn around the family's defaults."""
    return search.prior != "off" and isinstance(search.sampler, TPE | GP)


# ------------------------------------------------------------------------------------------ validating
def judge(spec: StudySpec, known: Mapping[str, Distribution]) -> None:
    """Raise UserError, with the place, for a prior without a parameter, outside its range or without effect."""
    given = {} if spec.search.prior == "off" else spec.search.prior
    nodes = spec.prior.value if spec.prior and isinstance(spec.prior.value, dict) else {}
    for name, prior in given.items():
        node = nodes.get(name, Node({}, str(spec.source)))
        if isinstance(spec.search.sampler, Grid | CustomSampler):
            what = f"search.prior: the sampler {spec.search.sampler.name} does not use a prior"
            raise UserError(what, where=node.key, help="leave prior out, or use tpe, gp or random")
        if name not in known:
            _refuse_name(name, node, known)
        _refuse_around(name, prior, known[name], node)
        _refuse_width(name, prior, known[name], node)


def _refuse_name(name: str, node: Node, known: Mapping[str, Distribution]) -> NoReturn:
    short = name.removeprefix("train.")
    near = f"write {short}" if short in known else did_you_mean(name, known)
    options = f"it can be {join_or([*known])}" if known else "leave it out: no parameter is left open"
    raise UserError(f"search.prior: there is no parameter {name}", where=node.key, help=near or options)


def _refuse_around(name: str, prior: Prior, distribution: Distribution, node: Node) -> None:
    at = node.value.get("around", node) if isinstance(node.value, dict) else node
    found = f"search.prior.{name}.around"
    if isinstance(distribution, Choice):
        if not any(_same(label, prior.around) for label in distribution.labels):
            remedy = f"it can be {join_or([flow(label) for label in distribution.labels])}"
            raise UserError(f"{found}: {flow(prior.around)} is not an option", where=at.where, help=remedy)
    elif beyond(distribution, prior.around):
        what = f"{found}: {flow(prior.around)} is not in {distribution}"
        raise UserError(what, where=at.where, help="write a value inside the range, or widen it in train")


def _refuse_width(name: str, prior: Prior, distribution: Distribution, node: Node) -> None:
    """Refuse any width except a share of a choice, a factor of a logarithmic range and a spread of a linear one."""
    takes = "share" if isinstance(distribution, Choice) else WIDTHS[distribution.kind]
    for key in ("factor", "spread", "share"):
        if key != takes and getattr(prior, key) is not None:
            at = node.value.get(key, node) if isinstance(node.value, dict) else node
            what = f"search.prior.{name}: {distribution} takes no {key}"
            raise UserError(what, where=at.key, help=f"write {takes}, or leave it out")


def _same(label: Any, value: Any) -> bool:
    """True if an option is meant: 1 is not true, although they are equal in Python."""
    return bool(label == value) and isinstance(label, bool) == isinstance(value, bool)
