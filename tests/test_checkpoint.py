import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers import checkpoint
from trainers.errors import EnvironmentFault
from trainers.files import whole

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
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load_state(path)
    assert not canary.exists()


def test_weights_come_back_with_their_notes(tmp_path):
    path = tmp_path / "best.safetensors"
    checkpoint.save_weights(path, {"w": torch.ones(2, 3).t()}, {"epoch": 4})
    assert torch.equal(checkpoint.load_weights(path)["w"], torch.ones(3, 2))
    assert b'\\"epoch\\": 4' in path.read_bytes()


def test_a_file_that_holds_no_weights_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"<html>")
    with pytest.raises(EnvironmentFault, match="cannot read weights") as caught:
        checkpoint.load_weights(tmp_path / "x.safetensors")
    assert caught.value.where == str(tmp_path / "x.safetensors")


def test_an_array_is_a_plain_npy(tmp_path):
    checkpoint.save_array(tmp_path / "a.npy", np.eye(2, dtype=np.float32))
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [[1, 0], [0, 1]]


def write_half(path):
    with whole(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        write_half(path)
    assert path.read_text() == "old"
    assert [p.name for p in Path(tmp_path).iterdir()] == ["last.ckpt"]
