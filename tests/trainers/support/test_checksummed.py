"""Arrays come back as they were written, or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest

from trainers.support.checksummed import load_array, save_array
from trainers.support.errors import EnvironmentFault

ARRAY = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_array(tmp_path / "a.npy", ARRAY)
    return tmp_path / "a.npy"


def test_an_array_comes_back_and_other_programs_read_it(path: Path):
    np.testing.assert_array_equal(load_array(path), ARRAY)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), ARRAY)
    np.testing.assert_array_equal(np.load(path, mmap_mode="r", allow_pickle=False), ARRAY)


def test_an_array_of_another_program_needs_no_digest(tmp_path: Path):
    np.save(tmp_path / "b.npy", ARRAY)
    np.testing.assert_array_equal(load_array(tmp_path / "b.npy"), ARRAY)


def test_any_flipped_bit_is_noticed(path: Path):
    content = path.read_bytes()
    for at in range(len(content)):
        spoilt = bytearray(content)
        spoilt[at] ^= 1
        path.write_bytes(spoilt)
        with pytest.raises(EnvironmentFault, match="damaged"):
            load_array(path)


def test_any_cut_is_noticed_that_takes_some_of_the_array(path: Path):
    content = path.read_bytes()
    for left in range(len(content) - 39):
        path.write_bytes(content[:left])
        with pytest.raises(EnvironmentFault, match="damaged"):
            load_array(path)


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def test_an_array_of_objects_is_damaged_and_its_code_is_not_run(tmp_path: Path):
    np.save(tmp_path / "evil.npy", np.array([Evil(tmp_path / "canary")], dtype=object), allow_pickle=True)
    with pytest.raises(EnvironmentFault, match="damaged"):
        load_array(tmp_path / "evil.npy")
    assert not (tmp_path / "canary").exists()
