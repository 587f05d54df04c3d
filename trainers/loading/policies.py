"""Augmentation policies: the named changes of each image, as matrices of geometry and colour. No image is used here.

TrivialAugment (Mueller and Hutter 2021, the "wide" ranges) and RandAugment (Cubuk et al. 2020), limited to the
changes that a matrix can express. Left out are auto-contrast, equalize, posterize, solarize and sharpness, and
clamping between two changes of colour: colours may leave 0..1 and come back, and are clamped at the end. Areas that a
change of geometry brings in from outside the image are filled with its mirror image.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from trainers.config import MAX_MAGNITUDE, Augment

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
CHANGES = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "contrast",
    "saturation",
)
_WIDE = (0, 0.99, 0.99, 1 / 7, 1 / 7, np.radians(135), 0.99, 0.99, 0.99)  # a seventh is 32 of 224 pixels
_RAND = (0, 0.3, 0.3, 0.45, 0.45, np.radians(30), 0.9, 0.9, 0.9)
"""Largest amounts: slopes of a shear, shares of the side, radians, and factors of 1 ± this."""


@dataclass(frozen=True)
class Plan:
    """The changes of each image of a batch, in this order."""

    kinds: np.ndarray  # [B, n] int, indices into CHANGES
    amounts: np.ndarray  # [B, n], signed


def draw(config: Augment, batch: int, rng: np.random.Generator) -> Plan | None:
    """Draw RandAugment's changes, of one strength, then TrivialAugment's, of uniform strength; None: both are off."""
    plans = []
    if (rand := config.rand_augment) is not None:
        plans.append(_draw((batch, rand.num_ops), _RAND, rng, rand.magnitude / MAX_MAGNITUDE))
    if config.trivial_augment:
        plans.append(_draw((batch, 1), _WIDE, rng))
    if not plans:
        return None
    return Plan(*(np.concatenate(parts, axis=1) for parts in zip(*map(astuple, plans), strict=True)))


def _draw(
    shape: tuple[int, int], largest: Sequence[float], rng: np.random.Generator, strength: float | None = None
) -> Plan:
    kinds = rng.integers(len(CHANGES), size=shape)
    share = rng.random(shape) if strength is None else np.full(shape, strength)
    sign = rng.choice((-1.0, 1.0), shape)
    return Plan(kinds, sign * share * np.array(largest)[kinds])


def geometry(plan: Plan, aspect: np.ndarray) -> np.ndarray:
    """Return output -> input coordinates, both -1..1, as [B, 3, 3]; aspect [B] is height over width."""
    total = np.tile(np.eye(3), (len(aspect), 1, 1))
    for kind, by in zip(plan.kinds.T, plan.amounts.T, strict=True):
        one = np.tile(np.eye(3), (len(aspect), 1, 1))
        turn = np.where(kind == CHANGES.index("rotate"), by, 0.0)
        shear_x, shear_y, across, down = (np.where(kind == k, by, 0.0) for k in range(1, 5))
        one[:, 0, 0] = one[:, 1, 1] = np.cos(turn)
        one[:, 0, 1] = (shear_x - np.sin(turn)) * aspect
        one[:, 1, 0] = (shear_y + np.sin(turn)) / aspect
        one[:, 0, 2], one[:, 1, 2] = 2 * across, 2 * down
        total = total @ one
    return total


def colour(plan: Plan, matrix: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour change `matrix` [B, 3, 3] and `grey` [B], as in `transforms.Draw`, followed by the plan's.

    All rows of a matrix have the same sum, the factor of grey; so the mean grey m of an image has become
    (sum + grey) m when a change of contrast uses it.
    """
    for kind, by in zip(plan.kinds.T, plan.amounts.T, strict=True):
        brightness, contrast, keep = (1 + np.where(kind == k, by, 0.0) for k in range(6, 9))
        matrix, grey = brightness[:, None, None] * matrix, brightness * grey
        grey = contrast * grey + (1 - contrast) * (matrix[:, 0].sum(1) + grey)
        matrix = contrast[:, None, None] * (saturation(keep) @ matrix)
    return matrix, grey


def saturation(keep: np.ndarray) -> np.ndarray:
    """Return the blend of a pixel with its grey, where `keep` [B] is the pixel's share: [B, 3, 3]."""
    grey = np.tile(np.array(GREY), (3, 1))  # [3, 3], every row the grey of a pixel
    blend: np.ndarray = keep[:, None, None] * np.eye(3) + (1 - keep)[:, None, None] * grey
    return blend
