"""Modules made of weights that exist: built without memory first, so that nothing is drawn only to be overwritten."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

RENEW = "init_non_persistent_buffers"  # timm's name for it
REGISTERED = ("_parameters", "_buffers", "_modules")  # what a module's state is made of
Made = TypeVar("Made", bound=nn.Module)


def filled(make: Callable[[], Made], weights: Callable[[Made], Mapping[str, Tensor]]) -> Made:
    """What `make` builds, filled with copies of the tensors that `weights` names for it, one for each key it has.

    A module that computes with its values while it is built, ties weights, or keeps tensors that its state lacks and
    it cannot make again, is built the usual way; it comes out the same, later. What `weights` raises passes through.
    """
    bare = _bare(make)
    if bare is None:
        module = make()
        module.load_state_dict(weights(module))
        return module
    own = bare.state_dict()
    copies = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in weights(bare).items()}
    bare.load_state_dict(copies, assign=True)
    for part in bare.modules():
        if hasattr(part, RENEW):
            getattr(part, RENEW)()
    return bare


def _bare(make: Callable[[], Made]) -> Made | None:
    """`make`'s module without memory but for the buffers that its state lacks; None where it cannot be had so."""
    try:
        with torch.device("meta"):
            module = make()
    except (NotImplementedError, RuntimeError):  # such as .item() of a value that is not there
        return None
    tied = len(list(module.parameters())) < len(list(module.named_parameters(remove_duplicate=False)))
    return None if tied or not all(_renewable(part) for part in module.modules()) else module


def _renewable(module: nn.Module) -> bool:
    """Give a module's buffers that no state holds memory; whether it can fill them, and hides nothing else."""
    for name in module._non_persistent_buffers_set:
        if module._buffers[name] is None:
            continue
        if not hasattr(module, RENEW):
            return False
        module._buffers[name] = torch.empty_like(module._buffers[name], device="cpu")  # type: ignore[arg-type]
    return not any(_holds(value) for name, value in vars(module).items() if name not in REGISTERED)


def _holds(value: object) -> bool:
    """Whether a tensor is hidden in an attribute."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, Tensor) or (isinstance(value, list | tuple | set) and any(map(_holds, value)))
