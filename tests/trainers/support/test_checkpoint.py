import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainers.support import checkpoint, checksummed
from trainers.support.errors import EnvironmentFault
from trainers.support.files import atomic_write

STATE = {"network": {"w": torch.arange(6.0)}, "epochs": ["{}"], "step": 3}


def test_a_state_comes_back_as_it_was(tmp_path):
    checkpoint.save_state(tmp_path / "last.ckpt", STATE)
    found = checkpoint.load_state(tmp_path / "last.ckpt")
    assert torch.equal(found["network"]["w"], STATE["network"]["w"])
    assert (found["epochs"], found["step"]) == (["{}"], 3)


def test_a_missing_state_is_none(tmp_path):
    assert checkpoint.load_state(tmp_path / "last.ckpt") is None


@pytest.mark.parametrize("where", [0, 100, 500, -1, -20])
def test_a_flipped_byte_is_noticed(tmp_path, where):
    path = tmp_path / "last.ckpt"
    checkpoint.save_state(path, STATE)
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    assert checkpoint.load_state(path) is None


@pytest.mark.parametrize("left", [0, 10, 39, 300])
def test_a_cut_file_is_noticed(tmp_path, left):
    path = tmp_path / "last.ckpt"
    checkpoint.save_state(path, STATE)
    path.write_bytes(path.read_bytes()[:left])
    assert checkpoint.load_state(path) is None


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_an_evil_pickle_is_never_run(tmp_path):
    path, canary = tmp_path / "last.ckpt", tmp_path / "canary"
    checkpoint.save_state(path, {"x": Evil(canary)})
    assert checkpoint.load_state(path) is None
    assert not canary.exists()


def test_weights_come_back_with_their_notes(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(path, {"w": torch.ones(2, 3).t()}, {"epoch": 4})
    assert torch.equal(checkpoint.load_weights(path)["w"], torch.ones(3, 2))
    assert checkpoint.read_notes(path) == {"epoch": 4}


def test_the_same_weights_are_the_same_bytes(tmp_path):
    tensors = {f"w{k}": torch.full((k,), float(k)) for k in range(1, 9)}
    for name in "ab":
        checkpoint.save_weights(tmp_path / name, tensors, {"epoch": 4})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_flipped_bit_of_the_weights_is_noticed(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(path, {"w": torch.arange(40.0)}, {"epoch": 4})
    content = path.read_bytes()
    names = (b"__metadata__", b"sweep", b"sha256")
    keys = {content.index(name) + k for name in names for k in range(len(name))}
    silent = []
    for at in range(len(content)):
        spoilt = bytearray(content)
        spoilt[at] ^= 1
        path.write_bytes(spoilt)
        if checksummed.weights_ok(path) and at not in keys:  # without these names it is another's file
            silent.append(at)
    assert silent == []


@pytest.mark.parametrize("left", [0, 7, 100, 300, -1])
def test_cut_weights_are_noticed(tmp_path, left):
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(path, {"w": torch.arange(40.0)}, {})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(EnvironmentFault, match="cannot read weights"):
        checkpoint.load_weights(path)


def test_weights_of_another_program_need_no_digest(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert checkpoint.load_weights(tmp_path / "w.safetensors")["w"].tolist() == [1, 1]


def test_a_file_that_holds_no_weights_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"<html>")
    with pytest.raises(EnvironmentFault, match="cannot read weights") as caught:
        checkpoint.load_weights(tmp_path / "x.safetensors")
    assert caught.value.where == str(tmp_path / "x.safetensors")


def write_half(path):
    with atomic_write(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        write_half(path)
    assert path.read_text() == "old"
    assert [p.name for p in Path(tmp_path).iterdir()] == ["last.ckpt"]
