"""Augmentations from extension files: of one image on the host before cropping, or of a batch on the device.

The name of the first parameter distinguishes the two forms:

- `(image, generator, ...)`: uint8 [H, W, 3] -> the same, with a `numpy.random.Generator`. The image is a copy of the
  cached one and may be changed in place. The loader's threads run it.
- `(images, generator, ...)`: float32 [B, 3, H, W] in 0..1 on the device -> the same, with a `torch.Generator` of that
  device. It runs after crop, colour and noise, and before normalisation, erasing, MixUp and CutMix.
- An albumentations transform or `Compose` (2.0 or newer) works as the first form, unchanged.
"""

import inspect
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import extensions
from trainers.config import Augment
from trainers.extensions import Definition
from trainers.loading.transforms import Change, Draw
from trainers.support.errors import UserError
from trainers.support.threads import share

SEEDS = 2**63
TRIES = 8  # seeds with which `check` calls an image augmentation: its change may be rare


@dataclass(frozen=True)
class CustomAugmentation:
    """One augmentation with its keys."""

    definition: Definition
    made: Callable[..., Any]  # a function, an object that can be called, or an albumentations transform

    @classmethod
    def of(cls, name: str, keys: dict[str, Any]) -> "CustomAugmentation":
        """Make the augmentation. Raises UserError if no file in use defines it, or its class fails to construct."""
        definition = extensions.needed("augmentations", name)
        return cls(definition, definition.bound(keys))

    def copied(self) -> "CustomAugmentation":
        """Return a copy that shares nothing with this one; a function stays the same."""
        return replace(self, made=self.definition.called(deepcopy, self.made))

    def on_image(self, image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        """Return the changed image, [H, W, 3]; `image` may be written to."""
        shape = image.shape
        found = self.definition.called(_applied, self.made, image, generator)
        if not isinstance(found, np.ndarray):
            what, remedy = type(found).__name__, "return a uint8 array [H, W, 3]; sweep makes the tensor"
        elif found.dtype != np.uint8:
            what, remedy = (
                f"{found.dtype} {list(found.shape)}",
                "return uint8 in 0..255; sweep normalises the images later",
            )
        elif found.shape != shape:
            what, remedy = f"uint8 {list(found.shape)}", "resize or pad it to the size of the image it was given"
        else:
            return found
        raise self._refused(f"returns {what} for a uint8 image {list(shape)}", remedy)

    def on_batch(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed images, [B, 3, H, W]; `images` may be written to."""
        shape, dtype, device = images.shape, images.dtype, images.device
        found = self.definition.called(self.made, images, generator)
        if not isinstance(found, Tensor):
            what, remedy = type(found).__name__, "return a tensor"
        elif found.shape != shape:
            what, remedy = f"a tensor {list(found.shape)}", "return the same number of images, of the same size"
        elif found.dtype != dtype or found.device != device:
            what, remedy = f"{found.dtype} on {found.device}", f"return {dtype} on images.device"
        else:
            return found
        raise self._refused(f"returns {what} for a batch {list(shape)}", remedy)

    def check(self, images: NDArray[np.uint8], device: torch.device) -> None:
        """See `check` below."""
        states = _global_states(device)
        first, second = (self._tried(images, device) for _ in range(2))
        after = _global_states(device)
        if used := [name for name, state in states.items() if state != after[name]]:
            what = f"uses the global random numbers of {' and '.join(used)}"
            raise self._refused(what, "draw every random number from the generator that it is given")
        if not all(bool(one.isfinite().all()) for one in first):
            raise self._refused("returns values that are not finite", "keep them between 0 and 1")
        if not all(torch.allclose(*pair, atol=1e-3) for pair in zip(first, second, strict=True)):
            remedy = "draw every random number from the generator, and keep no state between calls"
            raise self._refused("gives different results for equal generators", remedy)

    def _tried(self, images: NDArray[np.uint8], device: torch.device) -> list[Tensor]:
        """Return the results for these images, one by one or as a batch, float32."""
        if takes_batch(self.definition):
            batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                return [self.on_batch(batch, torch.Generator(device).manual_seed(0)).clone()]
        some = islice(cycle(images), max(TRIES, len(images)))
        made = [self.on_image(image.copy(), np.random.default_rng(k)) for k, image in enumerate(some)]
        return [torch.from_numpy(image.astype(np.float32)) for image in made]

    def _refused(self, what: str, remedy: str) -> UserError:
        definition = self.definition
        return UserError(f"the augmentation {definition.name} {what}", where=definition.where, help=remedy)


def takes_batch(definition: Definition) -> bool:
    """True if an augmentation changes a batch, not single images: its first parameter is named `images`."""
    value = definition.value
    signature = definition.called(inspect.signature, value.__call__ if inspect.isclass(value) else value)
    return next((name for name in signature.parameters if name != "self"), "") == "images"


def _applied(made: Callable[..., Any], image: NDArray[np.uint8], generator: np.random.Generator) -> Any:
    """Return the result of an augmentation of one image.

    All transforms of a `Compose` draw from one stream: its set_random_seed would give each the same numbers, and two
    of equal probability would always be applied together.
    """
    seed = getattr(made, "set_random_state", None)
    if seed is None:
        return made(image, generator)
    seed(generator, random.Random(int(generator.integers(SEEDS))))  # noqa: S311  not a secret
    return made(image=image)["image"]


@dataclass(frozen=True)
class CustomAugmentations:
    """All augmentations of a recipe, in its order: those of one image, then those of a batch.

    Each thread has its own augmentations, because an object may store what it is working on.
    """

    by_thread: tuple[tuple[CustomAugmentation, ...], ...] = ()  # of one image; empty if there are none
    batch: tuple[CustomAugmentation, ...] = ()

    @classmethod
    def of(cls, config: Augment, threads: int = 1) -> "CustomAugmentations":
        """Make the augmentations. Raises UserError if no file in use defines one, or it cannot be constructed."""
        found = [CustomAugmentation.of(name, keys) for name, keys in config.custom.items()]
        single = tuple(one for one in found if not takes_batch(one.definition))
        copies = [tuple(one.copied() for one in single) for _ in range(1, threads)]
        return cls((single, *copies) if single else (), tuple(one for one in found if takes_batch(one.definition)))

    def draw(self, how: Draw, rng: np.random.Generator) -> Draw:
        """Return the parameters with the seeds that the augmentations need. Draws nothing if there are none."""
        seeds = rng.integers(SEEDS, size=len(how.flip)) if self.by_thread else None
        return replace(how, image_seeds=seeds, batch_seed=int(rng.integers(SEEDS)) if self.batch else 0)

    def change_images(self, images: Tensor, seeds: NDArray[np.int64]) -> Tensor:
        """Change images [B, H, W, 3] uint8 in place; the number of threads does not affect the result."""
        pixels, threads = images.numpy(), len(self.by_thread)

        def part(thread: int) -> None:
            for number in range(thread, len(pixels), threads):
                generator = np.random.default_rng(seeds[number])
                for one in self.by_thread[thread]:
                    pixels[number] = one.on_image(pixels[number], generator)

        share(part, threads)
        return images

    def of_batch(self, how: Draw) -> Change | None:
        """Return the function that changes a batch with these parameters; None if nothing does."""
        return partial(self._change, seed=how.batch_seed) if self.batch else None

    @torch.no_grad()
    def _change(self, images: Tensor, seed: int) -> Tensor:
        """Change images [B, 3, H, W] float32 in 0..1, which may be written to."""
        generator = torch.Generator(images.device).manual_seed(seed)
        for one in self.batch:
            images = one.on_batch(images, generator)
        return images


NONE = CustomAugmentations()


def check(config: Augment, images: NDArray[np.uint8], device: torch.device) -> None:
    """Try a recipe's augmentations from extension files on images [B, H, W, 3] uint8, as in the cache.

    Each is called twice with equal generators, those of a batch on `device`; `images` stay as they are. Raises
    UserError, with the place in the user's file, for one that fails, changes the size or type of the images, returns
    values that are not finite, gives different results, or uses the global random numbers of random, numpy or torch.
    """
    for name, keys in config.custom.items():
        CustomAugmentation.of(name, keys).check(images, device)


def changes_images(config: Augment) -> bool:
    """True if an augmentation from an extension file changes single images, which only the host can do."""
    return not all(takes_batch(extensions.needed("augmentations", name)) for name in config.custom)


def _global_states(device: torch.device) -> dict[str, Sequence[Any]]:
    """Return the states of the process-wide random generators."""
    found = {
        "random": random.getstate(),
        "numpy.random": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
    }
    return found | ({"torch.cuda": torch.cuda.get_rng_state(device).tolist()} if device.type == "cuda" else {})
