import tracemalloc

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from trainers.data.table import MISSING, Category
from trainers.evaluation import temperature

SHAPE, TAGS = Category("shape", ("a", "b", "c")), Category("tags", ("x", "y"), multi=True)


def drawn(images: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn by the probabilities of logits, which are then multiplied: sure by so much too much."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(images, 3)) * 2
    chances = softmax(logits, axis=1).cumsum(1)
    labels = (rng.random((images, 1)) > chances).sum(1)[:, None]
    return (scale * logits).astype(np.float32), labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_probabilities_that_are_too_sure_are_found_out_by_how_much(scale):
    logits, labels = drawn(20_000, scale)
    found = temperature.fit(logits, logits, labels, [SHAPE])
    assert found["shape"] == pytest.approx(scale, rel=0.05)


def test_no_temperature_near_the_fitted_one_makes_val_likelier():
    logits, labels = drawn(500, 3.0)
    best = temperature.fit(logits, logits, labels, [SHAPE])["shape"]

    def loss(heat: float) -> float:
        shares = softmax(logits.astype(np.float64) / heat, axis=1)
        return float(-np.log(shares[np.arange(len(labels)), labels[:, 0]]).mean())

    assert loss(best) <= min(loss(best * 1.01), loss(best / 1.01))


@pytest.mark.parametrize("classes", [2, 40, 700])
def test_of_any_number_of_classes_the_fitted_one_is_the_likeliest(classes):
    rng = np.random.default_rng(3)
    logits = 2 * rng.normal(size=(500, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    kind = Category("kind", tuple(map(str, range(classes))))
    found = temperature.fit(3 * logits, 3 * logits, labels[:, None], [kind])["kind"]

    def loss(log: float) -> float:
        return float(-log_softmax(3 * logits / np.exp(log), axis=1)[np.arange(500), labels].mean())

    best = minimize_scalar(loss, bounds=(-2, 2), method="bounded", options={"xatol": 1e-7}).x
    assert np.log(found) == pytest.approx(best, abs=1e-4)


def test_many_classes_are_fitted_a_few_images_at_a_time():
    """Every evaluation of the loss over whole arrays took several more of them, and four to seven times as long."""
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2000, 500))
    kind = Category("kind", tuple(map(str, range(500))))
    tracemalloc.start()
    temperature.fit(logits, logits, rng.integers(0, 500, (2000, 1)), [kind])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * logits.nbytes


def test_flags_are_fitted_to_what_the_network_gives_and_not_to_what_thresholds_leave():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5000, 2)) * 2
    flags = (rng.random((5000, 2)) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    found = temperature.fit(2 * logits - 3, 2 * logits, flags, [TAGS])
    assert found["tags"] == pytest.approx(2, rel=0.1)


def test_missing_answers_have_no_say():
    logits, labels = drawn(2000, 2.0)
    whole = temperature.fit(logits, logits, labels, [SHAPE])
    more = np.concatenate([labels, np.full((500, 1), MISSING)])
    noise = np.concatenate([logits, np.full((500, 3), [9, -9, 0], np.float32)])
    assert temperature.fit(noise, noise, more, [SHAPE]) == whole


@pytest.mark.parametrize("images", [0, 1, temperature.MIN_ANSWERS - 1])
def test_few_answers_leave_a_category_as_it_is(images):
    logits, labels = drawn(images, 3.0)
    assert temperature.fit(logits, logits, labels, [SHAPE]) == {}


def test_val_without_a_mistake_does_not_make_certainty_of_it():
    labels = np.arange(300)[:, None] % 3
    logits = np.eye(3, dtype=np.float32)[labels[:, 0]]
    assert temperature.fit(logits, logits, labels, [SHAPE]) == {"shape": temperature.COLDEST}
    assert temperature.fit(0 * logits, 0 * logits, labels, [SHAPE]) == {"shape": 1.0}
    assert temperature.fit(-logits, -logits, labels, [SHAPE]) == {"shape": temperature.HOTTEST}


def test_logits_that_are_no_numbers_have_no_temperature():
    logits, labels = drawn(300, 1.0)
    logits[3, 1] = np.nan
    assert temperature.fit(logits, logits, labels, [SHAPE]) == {}
