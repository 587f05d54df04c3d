"""Draw one made-up garment. Pure: the same traits, size and random state give the same pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from trainers.data.table import Box

Colour = tuple[int, int, int]
Point = tuple[float, float]
Field = NDArray[np.float32]

SKIN: tuple[Colour, ...] = ((255, 219, 190), (233, 190, 155), (198, 144, 106), (141, 92, 62), (92, 60, 42))


class Traits(NamedTuple):
    """Class indices in the order of the challenge's categories."""

    texture: int
    sleeve: int
    length: int
    neckline: int
    material: int
    fit: int


@dataclass(frozen=True)
class Figure:
    """The position of the person in pixels: centre, shoulder line, and the length of one unit (a head)."""

    x: float
    y: float
    unit: float

    def at(self, x: float, y: float) -> Point:
        return self.x + x * self.unit, self.y + y * self.unit

    def mirrored(self, *points: Point) -> list[Point]:
        """Return an outline from its right half, given from top to bottom."""
        return [self.at(x, y) for x, y in points] + [self.at(-x, y) for x, y in reversed(points)]

    def box(self, left: float, upper: float, right: float, lower: float) -> list[Point]:
        return [self.at(left, upper), self.at(right, lower)]


def picture(
    traits: Traits, size: tuple[int, int], random: Generator, *, over: Sequence[int] = ()
) -> tuple[Image.Image, Box]:
    """Draw a person in the garment before a cluttered wall: RGB of this (width, height), and the garment's box.

    The textures `over` are printed over that of `traits`.
    """
    width, height = size
    image = _background(size, random)
    unit = min(width / 3, height / 5.9) * random.uniform(0.9, 1.08)
    spare = max(0.0, height - 5.9 * unit)
    figure = Figure(width * random.uniform(0.44, 0.56), 1.45 * unit + spare * random.uniform(0.1, 0.9), unit)
    skin = SKIN[random.integers(len(SKIN))]
    _person(image, figure, skin, bare=traits.length != 2, random=random)
    mask = _outline(figure, traits, size, random)
    fabric = _fabric(traits, figure, size, random, over)
    if traits.material == 1:  # chiffon is translucent
        fabric = Image.blend(image, fabric, random.uniform(0.5, 0.68))
    image.paste(fabric, mask=mask)
    _collar(image, figure, traits.neckline, skin, random)
    left, upper, right, lower = mask.getbbox() or (0, 0, width, height)
    return _camera(image, random), (left, upper, right, lower)


def _colour(random: Generator, low: int = 20, high: int = 235) -> Colour:
    red, green, blue = (int(value) for value in random.integers(low, high, 3))
    return red, green, blue


def _background(size: tuple[int, int], random: Generator) -> Image.Image:
    coarse = random.integers(90, 225) + random.integers(-25, 26, 3) + random.integers(-30, 31, (3, 3, 3))
    image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(0, 5)):
        (x, y), (w, h) = random.uniform(-0.2, 1, 2) * size, random.uniform(0.1, 0.5, 2) * size
        shape = draw.ellipse if random.random() < 0.4 else draw.rectangle
        shape([x, y, x + w, y + h], fill=_colour(random, 50, 250))
    return image


def _person(image: Image.Image, figure: Figure, skin: Colour, *, bare: bool, random: Generator) -> None:
    draw = ImageDraw.Draw(image)
    hair = _colour(random, 10, 110)
    draw.ellipse(figure.box(-0.5, -1.4, 0.5, -0.3), fill=hair)
    draw.ellipse(figure.box(-0.38, -1.25, 0.38, -0.25), fill=skin)
    draw.rectangle(figure.box(-0.18, -0.5, 0.18, 0.1), fill=skin)
    draw.polygon(figure.mirrored((0.2, -0.1), (0.78, 0.06), (0.4, 1.2), (0.52, 2.3)), fill=skin)
    thick = max(2, round(0.3 * figure.unit))
    for side in (-1, 1):
        draw.line([figure.at(0.8 * side, 0.2), figure.at(1.15 * side, 1.3), figure.at(1.2 * side, 2.3)], skin, thick)
        draw.line([figure.at(0.33 * side, 2.2), figure.at(0.38 * side, 4.9)], skin, round(1.3 * thick))
    if not bare:
        trousers = _colour(random, 15, 190)
        outline = ((0.62, 1.9), (0.7, 3.0), (0.65, 4.8), (0.25, 4.8), (0.05, 2.9))
        draw.polygon(figure.mirrored(*outline), fill=trousers)


def _outline(figure: Figure, traits: Traits, size: tuple[int, int], random: Generator) -> Image.Image:
    """Return the mask of the garment: body and skirt by length and fit, arms by sleeve, cut out at the neck."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    waist, hem = ((0.44, 0.56), (1.0, 1.7), (0.7, 0.92))[traits.fit]
    hip = {0: hem, 1: 0.85 * hem, 2: 0.75 * (waist + hem) / 1.35}[traits.length] * random.uniform(0.94, 1.06)
    end = (4.75, 3.2, 2.25)[traits.length] + random.uniform(-0.15, 0.15)
    draw.polygon(figure.mirrored((0.25, -0.08), (0.82, 0.08), (0.74, 0.6), (waist, 1.25), (hip, end)), fill=255)
    reach = ((1.2, 2.2), (1.05, 0.85), None)[traits.sleeve]
    if reach is not None:
        thick = max(3, round((0.34, 0.6, 0.42)[traits.fit] * figure.unit))
        for side in (-1, 1):
            elbow = figure.at(side * (1.15 if reach[1] > 1 else 0.95), min(1.3, 0.5 * reach[1] + 0.1))
            joints = [figure.at(0.74 * side, 0.22), elbow, figure.at(side * reach[0], reach[1])]
            draw.line(joints, 255, thick, joint="curve")
    _cut_neck(draw, figure, traits.neckline)
    return mask


def _cut_neck(draw: ImageDraw.ImageDraw, figure: Figure, neckline: int) -> None:
    if neckline == 0:
        draw.ellipse(figure.box(-0.36, -0.42, 0.36, 0.3), fill=0)
    elif neckline == 1:
        draw.polygon([figure.at(-0.34, -0.3), figure.at(0.34, -0.3), figure.at(0, 0.95)], fill=0)
    elif neckline == 2:
        draw.rectangle(figure.box(-0.42, -0.3, 0.42, 0.5), fill=0)


def _collar(image: Image.Image, figure: Figure, neckline: int, skin: Colour, random: Generator) -> None:
    """Draw the band of a crew neck, or the fabric that closes the throat if there is no neckline."""
    draw = ImageDraw.Draw(image)
    if neckline == 0:
        draw.arc(
            figure.box(-0.38, -0.44, 0.38, 0.34), 5, 175, tuple(c // 2 for c in skin), max(1, round(figure.unit / 16))
        )
    elif neckline == 3:
        draw.rectangle(figure.box(-0.24, -0.38, 0.24, 0.0), fill=_colour(random, 30, 200))


def _fabric(
    traits: Traits, figure: Figure, size: tuple[int, int], random: Generator, over: Sequence[int]
) -> Image.Image:
    base = _cloth_colour(traits.material, random)
    cloth = Image.new("RGB", size, base)
    for texture in (traits.texture, *over):
        other = _contrast(base, random)
        _PATTERNS[texture](ImageDraw.Draw(cloth), figure, other, random)
    return _shaded(cloth, traits, figure, random)


def _cloth_colour(material: int, random: Generator) -> Colour:
    if material == 0 and random.random() < 0.85:  # denim is mostly blue
        blue = int(random.integers(90, 190))
        return blue // 2 - 10, blue * 3 // 4 - 10, blue + 20
    if material == 3:  # leather is dark
        return _colour(random, 10, 95)
    if material == 1:
        return _colour(random, 130, 250)
    return _colour(random)


def _contrast(base: Colour, random: Generator) -> Colour:
    shift = (1 if sum(base) < 380 else -1) * int(random.integers(55, 120))
    red, green, blue = (int(np.clip(c + shift + random.integers(-30, 30), 0, 255)) for c in base)
    return red, green, blue


def _floral(draw: ImageDraw.ImageDraw, figure: Figure, colour: Colour, random: Generator) -> None:
    radius = figure.unit * random.uniform(0.07, 0.12)
    heart = _colour(random, 120, 255)
    for x, y in random.uniform((-1.5, -0.3), (1.5, 4.9), (110, 2)):
        cx, cy = figure.at(x, y)
        for angle in np.arange(5) * 1.2566:
            px, py = cx + radius * np.cos(angle), cy + radius * np.sin(angle)
            draw.ellipse([px - radius, py - radius, px + radius, py + radius], fill=colour)
        draw.ellipse([cx - radius / 2, cy - radius / 2, cx + radius / 2, cy + radius / 2], fill=heart)


def _graphic(draw: ImageDraw.ImageDraw, figure: Figure, colour: Colour, random: Generator) -> None:
    x, y, r = random.uniform(-0.1, 0.1), random.uniform(0.95, 1.25), random.uniform(0.3, 0.45)
    if random.random() < 0.5:
        draw.ellipse(figure.box(x - r, y - r, x + r, y + r), fill=colour)
    else:
        draw.rectangle(figure.box(x - r, y - 0.7 * r, x + r, y + 0.7 * r), fill=colour)
    second = _colour(random)
    draw.polygon(
        [figure.at(x, y - 0.6 * r), figure.at(x - 0.5 * r, y + 0.5 * r), figure.at(x + 0.5 * r, y + 0.5 * r)], second
    )


def _striped(draw: ImageDraw.ImageDraw, figure: Figure, colour: Colour, random: Generator) -> None:
    step = random.uniform(0.2, 0.36)
    slant = random.uniform(-0.15, 0.15)
    for y in np.arange(-0.8, 5.2, step):
        draw.line(
            [figure.at(-1.7, y - slant), figure.at(1.7, y + slant)], colour, max(1, round(0.45 * step * figure.unit))
        )


def _embroidered(draw: ImageDraw.ImageDraw, figure: Figure, colour: Colour, random: Generator) -> None:
    step = random.uniform(0.16, 0.24)
    r = 0.3 * step
    for y in (0.45, 0.75, 2.05, random.uniform(2.8, 3.1)):
        for k, x in enumerate(np.arange(-1.4, 1.4, step)):
            draw.ellipse(figure.box(x - r, y + (k % 2) * step - r, x + r, y + (k % 2) * step + r), fill=colour)


def _pleated(draw: ImageDraw.ImageDraw, figure: Figure, colour: Colour, random: Generator) -> None:
    step = random.uniform(0.16, 0.26)
    for x in np.arange(-1.7, 1.7, step):
        draw.line(
            [figure.at(0.75 * x, -0.3), figure.at(1.15 * x, 5)], colour, max(1, round(0.3 * step * figure.unit))
        )


def _solid(draw: ImageDraw.ImageDraw, figure: Figure, colour: Colour, random: Generator) -> None:
    if random.random() < 0.25:  # a belt, so that not every line is a pattern
        draw.rectangle(figure.box(-1.6, 1.2, 1.6, 1.35), fill=colour)


def _lattice(draw: ImageDraw.ImageDraw, figure: Figure, colour: Colour, random: Generator) -> None:
    step = random.uniform(0.3, 0.5)
    thick = max(1, round(0.25 * step * figure.unit))
    for offset in np.arange(-6, 7, step):
        draw.line([figure.at(-1.8, offset - 0.9), figure.at(1.8, offset + 2.7)], colour, thick)
        draw.line([figure.at(-1.8, offset + 2.7), figure.at(1.8, offset - 0.9)], colour, thick)


_PATTERNS = (_floral, _graphic, _striped, _embroidered, _pleated, _solid, _lattice)


def _shaded(cloth: Image.Image, traits: Traits, figure: Figure, random: Generator) -> Image.Image:
    """Return the cloth under light: folds for every material, and what identifies the material."""
    width, height = cloth.size
    x = ((np.arange(width) - figure.x) / figure.unit).astype(np.float32)[None, :]
    y = ((np.arange(height) - figure.y) / figure.unit).astype(np.float32)[:, None]
    light = 1 + np.float32(random.uniform(-0.18, 0.18)) * x
    light = light + 0.05 * np.sin(np.float32(random.uniform(3, 6)) * x + np.float32(random.uniform(-1, 1)) * y)
    light = light + _material(traits.material, x, y, random)
    pixels = np.asarray(cloth, dtype=np.float32) * light[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _material(material: int, x: Field, y: Field, random: Generator) -> Field:
    """Return the change of brightness typical of the material, at x, y in units from the figure."""
    if material == 0:  # denim: diagonal twill
        field = 0.16 * np.sign(np.sin(38 * (x + y)))
    elif material == 1:  # chiffon: soft waves
        field = 0.1 * np.sin(9 * x + 2 * np.sin(2 * y))
    elif material == 3:  # leather: narrow bright highlights
        field = 2.6 * np.maximum(0, np.sin(3.1 * x + 1.3 * np.sin(1.7 * y + random.uniform(0, 6)))) ** 10
    elif material == 4:  # faux fur: coarse noise
        field = random.normal(0, 0.3, (y.shape[0], x.shape[1]))
    elif material == 5:  # knit: ribs of small stitches
        field = 0.2 * np.sin(30 * x) * (0.6 + 0.4 * np.sin(22 * y))
    else:  # cotton: plain
        field = 0 * (x + y)
    return np.asarray(field, dtype=np.float32)


def _camera(image: Image.Image, random: Generator) -> Image.Image:
    if random.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 1.2)))
    grain = int(random.integers(4, 16))
    noise = random.integers(-grain, grain + 1, (image.height, image.width, 3), dtype=np.int8)
    pixels = np.asarray(image).astype(np.int16) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
