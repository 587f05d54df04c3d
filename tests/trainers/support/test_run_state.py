"""State, model and logits on disk belong together, whatever a kill leaves of a write."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.support import run_state
from trainers.support.checkpoint import load_weights, read_notes
from trainers.support.checksummed import load_array
from trainers.support.run_state import Model

RECIPE = '{"train": {}}'
POINTS = [
    *("written next.val_logits.npy", "renamed next.val_logits.npy"),
    *("written next.model.safetensors", "renamed next.model.safetensors"),
    *("written last.ckpt", "renamed last.ckpt", "settled val_logits.npy", "settled model.safetensors"),
]
TWO_WRITES = """\
import sys
from pathlib import Path
from tests.trainers.support.test_run_state import write
write(Path(sys.argv[1]), epochs=2, model=2)
write(Path(sys.argv[1]), epochs=5, model=3)
"""


def write(folder: Path, *, epochs: int, model: int | None) -> None:
    """A checkpoint after so many epochs, with the model of one of them that the disk lacks."""
    new = None
    if model is not None:
        tensors = {"w": torch.full((2,), float(model))}
        new = Model(lambda: tensors, {"epoch": {"number": model}}, np.full(2, model))
    run_state.write(folder, lambda: {"recipe": RECIPE, "epochs": [""] * epochs}, new)


def found(folder: Path) -> tuple[int, int, int, int]:
    """What a run that goes on there has: epochs, and the epoch of the model's notes, its weights and the logits."""
    state = run_state.state(folder, RECIPE, validated=True)
    assert state is not None
    number = read_notes(folder / run_state.WEIGHTS)["epoch"]["number"]
    weight = int(load_weights(folder / run_state.WEIGHTS)["w"][0])
    return len(state["epochs"]), number, weight, int(load_array(folder / run_state.LOGITS)[0])


def test_a_model_stays_while_later_epochs_count_less(tmp_path):
    write(tmp_path, epochs=1, model=1)
    write(tmp_path, epochs=3, model=2)
    assert found(tmp_path) == (3, 2, 2, 2)
    write(tmp_path, epochs=4, model=None)
    assert found(tmp_path) == (4, 2, 2, 2)
    assert not list(tmp_path.glob("next.*"))


@pytest.mark.process
@pytest.mark.parametrize("point", [POINTS[5], *(pytest.param(one, marks=pytest.mark.slow) for one in POINTS)])
def test_after_a_kill_in_the_midst_of_a_write_all_is_of_that_write_or_all_of_the_one_before(tmp_path, point):
    words = [sys.executable, "-c", TWO_WRITES, str(tmp_path)]
    killed = subprocess.run(words, env=os.environ | {"SWEEP_CRASH": f"{point}@2"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    on_record = POINTS.index(point) >= POINTS.index("renamed last.ckpt")
    assert found(tmp_path) == ((5, 3, 3, 3) if on_record else (2, 2, 2, 2))
    assert not list(tmp_path.glob("next.*"))
