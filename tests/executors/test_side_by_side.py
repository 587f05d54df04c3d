"""Trials that train side by side are the trials that train alone. Real training, in real workers."""

from pathlib import Path

import pytest

from sweeper.executors.local import Local
from sweeper.executors.packing import Packing
from sweeper.system.devices import Slot
from sweeper.trial import Done, Failed, Job, Progress
from trainers.config import Recipe
from trainers.data_config import DataConfig
from trainers.support.checkpoint import load_weights

pytestmark = pytest.mark.process

RATES = (1e-3, 3e-3, 1e-2)


def jobs(place: Path, photos: DataConfig, cache: Path) -> list[Job]:
    made = []
    for number, rate in enumerate(RATES):
        train = {
            "backbone": "test_resnet",
            "pretrained": False,
            "image_size": 32,
            "batch_size": 16,
            "epochs": 3,
            "optimizer": {"name": "adamw", "lr": rate},
            "augment": {"random_shift": 0.125, "color_jitter": {"brightness": 0.1}},
        }
        folder = place / f"{number:04d}"
        folder.mkdir(parents=True)
        recipe = Recipe.model_validate({"data": photos.model_dump(), "train": train})
        made.append(Job(study="s", trial=number, recipe=recipe, folder=folder, cache=cache))
    return made


def trained(executor: Local, waiting: list[Job]) -> list[list[dict[str, object]]]:
    """The epochs of each job, without what a clock or the machine's load says."""
    found: dict[str, list[dict[str, object]]] = {job.key: [] for job in waiting}
    ended = 0
    while ended < len(found):
        while waiting and executor.free():
            executor.start(waiting.pop(0))
        message = executor.next(1.0)
        if isinstance(message, Progress):
            clocks = {"seconds", "images_per_second", "peak_memory_gb", "time"}
            found[message.key].append(message.epoch.model_dump(exclude=clocks))
            executor.answer(message.key, keep=True)
        elif isinstance(message, Failed):
            raise AssertionError(message.detail)
        elif isinstance(message, Done):
            ended += 1
    executor.close()
    return [found[key] for key in sorted(found)]


@pytest.mark.slow
def test_packed_trials_are_bit_for_bit_those_that_had_the_device_alone(photos, cache, tmp_path):
    alone = trained(Local([Slot("cpu")]), jobs(tmp_path / "alone", photos, cache))
    slots = [Slot("cpu:0"), Slot("cpu:1")]
    packed = trained(
        Local(slots, packing=Packing({"cpu": 64.0}, {"cpu": 2})), jobs(tmp_path / "packed", photos, cache)
    )
    assert packed == alone
    for number in range(len(RATES)):
        files = [tmp_path / how / f"{number:04d}" / "model.safetensors" for how in ("alone", "packed")]
        one, other = map(load_weights, files)
        assert all((one[name] == other[name]).all() for name in one)
