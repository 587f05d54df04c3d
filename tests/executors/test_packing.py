"""How many trials a device takes at once."""

import time

from sweeper.executors.packing import Packing
from trainers.config import Recipe
from trainers.epoch import Epoch, Scores


def recipe(backbone: str = "resnet18") -> Recipe:
    return Recipe.model_validate({"data": {"root": "x"}, "train": {"backbone": backbone}})


def epoch(index: int, pace: float, memory: float = 2.0) -> Epoch:
    scores = Scores(
        loss=1, overall_accuracy=0, mean_class_accuracy=0, macro_precision=0, macro_recall=0, macro_f1=0,
        category_accuracy={},
    )  # fmt: skip
    return Epoch(
        number=index + 1,
        train=scores,
        val=scores,
        lr=0.1,
        seconds=1,
        images_per_second=pace,
        peak_memory_gb=memory,
        time=time.time() + 2,  # after the trial began
    )


def alone(packing: Packing, pace: float = 100, memory: float = 2.0) -> None:
    packing.began("gpu", "0", recipe())
    for index in range(2):
        packing.epoch("gpu", "0", epoch(index, pace, memory))


def beside(packing: Packing, trials: int, pace: float) -> None:
    """Epochs of trials 0 to `trials`, two each: during the first of them the last trial was just starting."""
    for index in (2, 3):
        for trial in range(trials):
            packing.epoch("gpu", str(trial), epoch(index, pace))


def test_a_device_begins_with_one_trial():
    assert Packing({"gpu": 24.0}, {"gpu": 8}).allowed("gpu") == 1


def test_a_second_trial_is_tried_when_the_first_has_shown_its_memory_and_pace():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    assert packing.allowed("gpu") == 2


def test_nothing_is_packed_over_nine_tenths_of_the_memory():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing, memory=9.4)  # 2 x (1.1 x 9.4 + 0.6) = 21.9, above 21.6
    assert packing.allowed("gpu") == 1
    assert packing.alone("gpu")


def test_more_are_tried_while_all_together_gain():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    packing.began("gpu", "1", recipe())
    beside(packing, 2, pace=80)  # 1.6 times one alone
    assert packing.allowed("gpu") == 3
    packing.began("gpu", "2", recipe())
    beside(packing, 3, pace=54)  # 1.62: not 5 % more
    assert packing.allowed("gpu") == 2


def test_packing_that_was_slower_is_given_up_for_good():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    packing.began("gpu", "1", recipe())
    beside(packing, 2, pace=45)
    assert packing.allowed("gpu") == 1
    packing.ended("gpu", "1")
    packing.epoch("gpu", "0", epoch(4, 100))
    packing.epoch("gpu", "0", epoch(5, 100))
    assert packing.allowed("gpu") == 1
    assert packing.alone("gpu")


def test_an_epoch_in_which_a_neighbour_came_or_went_says_nothing():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    packing.began("gpu", "1", recipe())
    packing.epoch("gpu", "0", epoch(2, 40))  # it began before trial 1 did
    packing.epoch("gpu", "1", epoch(0, 90))
    packing.epoch("gpu", "0", epoch(3, 90))
    assert packing.allowed("gpu") == 3


def test_another_backbone_is_not_compared_with_the_one_that_ran_alone():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    packing.began("gpu", "1", recipe("convnext_large"))
    beside_other = [epoch(0, 5), epoch(1, 5)]
    for one in beside_other:
        packing.epoch("gpu", "1", one)
    assert packing.allowed("gpu") == 2
    for index in (2, 3):
        packing.epoch("gpu", "0", epoch(index, 70))  # 2 x .7 of the pace alone
    assert packing.allowed("gpu") == 3


def test_running_out_of_memory_beside_others_ends_the_packing():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    packing.began("gpu", "1", recipe())
    packing.ended("gpu", "1", out_of_memory=True)
    assert packing.allowed("gpu") == 1


def test_a_device_whose_memory_nobody_knows_takes_one_trial():
    packing = Packing({"gpu": None}, {"gpu": 8})
    alone(packing)
    assert packing.allowed("gpu") == 1


def test_epochs_of_an_earlier_call_that_are_told_again_say_nothing():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    packing.began("gpu", "0", recipe())
    for index in range(3):
        packing.epoch("gpu", "0", epoch(index, 100).model_copy(update={"time": time.time() - 60}))
    assert packing.allowed("gpu") == 1


def test_trials_of_one_epoch_are_packed_too():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    for number in range(2):
        packing.began("gpu", str(number), recipe())
        packing.epoch("gpu", str(number), epoch(0, 100))
        packing.ended("gpu", str(number))
    assert packing.allowed("gpu") == 2


def test_a_larger_trial_than_those_before_makes_room_for_itself():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    packing.began("gpu", "1", recipe("convnext_large"))
    packing.epoch("gpu", "1", epoch(0, 5, memory=12))
    assert packing.allowed("gpu") == 1


def test_packing_of_which_nothing_can_be_told_is_given_up():
    packing = Packing({"gpu": 24.0}, {"gpu": 8})
    alone(packing)
    for number in range(1, 9):
        packing.began("gpu", str(number), recipe("never_alone"))
        packing.epoch("gpu", str(number), epoch(0, 5))
        packing.ended("gpu", str(number))
    assert packing.allowed("gpu") == 1
