"""What a word that nobody knows may have meant."""

import pytest

from trainers.support.text import did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("gama", ["alpha", "gamma"], "gamma"),
        ("acuracy", ["loss", "overall_accuracy", "mean_class_accuracy", "top_3_accuracy"], "overall_accuracy"),
        ("f1", ["macro_f1", "micro_f1"], "macro_f1"),
        ("resnet5", ["test_resnet", "resnet50"], "resnet50"),
        ("photo", ["photos.yaml", "photos"], "photos"),
    ],
)
def test_the_closest_word_or_end_of_one_is_named(word, known, meant):
    assert did_you_mean(word, known) == f"did you mean '{meant}'?"


@pytest.mark.parametrize("known", [[], ["loss"]])
@pytest.mark.parametrize("word", ["", "zebra"])
def test_nothing_is_named_if_nothing_is_close(word, known):
    assert not did_you_mean(word, known)
