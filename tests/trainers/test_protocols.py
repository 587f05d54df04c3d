"""The protocols of extension files fit the examples and what sweep calls; mypy reads this file as well."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples import cma_es, kappa, poly_loss, small_network
from trainers import protocols, signatures
from trainers.protocols import (
    AllCategoriesMetric,
    Backbone,
    BatchAugmentation,
    ImageAugmentation,
    Layout,
    Loss,
    Metric,
    Sampler,
)
from trainers.signatures import Kind

METRICS: Mapping[str, Metric] = kappa.metrics
LOSSES: Mapping[str, Loss] = poly_loss.losses
MODELS: Mapping[str, Callable[..., Backbone]] = small_network.models
SAMPLERS: Mapping[str, Sampler] = cma_es.samplers


def of_one_category(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def of_all(probabilities: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]) -> float | None:
    return of_one_category(probabilities[0], labels[:, 0])


def lifted(image: NDArray[np.uint8], generator: np.random.Generator, most: int = 9) -> NDArray[np.uint8]:
    return image + np.uint8(generator.integers(most))


def dimmed(images: Tensor, generator: torch.Generator, *, share: float) -> Tensor:
    return images * (1 - share * torch.rand(1, generator=generator))


def of_names(root: Path, pattern: str = "*.jpg") -> Iterator[dict[str, object]]:
    for path in root.glob(pattern):
        yield {"path": path, "split": None, "answers": {"a": path.name}}


METRIC: Metric = of_one_category
ALL: AllCategoriesMetric = of_all
IMAGE: ImageAugmentation = lifted
BATCH: BatchAugmentation = dimmed
LAYOUT: Layout = of_names

# What does not fit: mypy reports an ignore that it does not need.
NO_METRIC: Metric = of_all  # type: ignore[assignment]
NO_BATCH: BatchAugmentation = lifted  # type: ignore[assignment]
NO_LOSS: Loss = of_one_category  # type: ignore[assignment]
NO_MODEL: Callable[..., Backbone] = torch.nn.Linear  # type: ignore[assignment]
NO_SAMPLER: Sampler = of_names  # type: ignore[assignment]

PROTOCOLS: dict[Kind, Any] = {
    "metrics": protocols.Metric,
    "losses": protocols.Loss,
    "augmentations": protocols.ImageAugmentation,
    "heads": protocols.Head,
    "layouts": protocols.Layout,
    "samplers": protocols.Sampler,
    "pruners": protocols.Pruner,
}


@pytest.mark.parametrize(("kind", "protocol"), PROTOCOLS.items())
def test_a_protocol_takes_what_its_kind_is_called_with(kind: Kind, protocol: Any) -> None:
    named = [
        one.name for one in inspect.signature(protocol.__call__).parameters.values() if one.kind < one.VAR_POSITIONAL
    ]
    assert tuple(named[1:]) == signatures.LEADING[kind]


def test_every_kind_but_models_is_called_by_a_protocol() -> None:
    assert {*PROTOCOLS, "models"} == set(signatures.KINDS)
