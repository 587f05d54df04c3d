"""Old keys and names are answered with what to write today."""

from collections.abc import Sequence

import pytest

from sweeper.space import hints
from sweeper.space.space import Space
from sweeper.space.yaml_io import read
from trainers.support.errors import UserError

SPACE = """
data: {layout: folder, root: d}
search: {sampler: random, pruner: none}
budget: {trials: 3}
train:
  backbone: b
  head: linear
  loss: cross_entropy
  optimizer: adamw
  schedule: cosine
  augment: {}
"""


@pytest.fixture
def asked(tmp_path):
    def ask(*assignments: str) -> Space:
        path = tmp_path / "question.yaml"
        path.write_text(SPACE)
        return Space(read(path, sets=assignments), ["garment"])

    return ask


def assigned(path: str) -> str:
    """What `--set` is given to write an old path."""
    key, colon, value = path.partition(": ")
    return f"{key}={value if colon else 1}"


@pytest.mark.parametrize(("path", "new"), hints.RENAMED.items())
def test_an_old_name_is_answered_with_the_new_one(asked, path, new):
    with pytest.raises(UserError) as caught:
        asked(assigned(path))
    assert caught.value.what == f"{path} was renamed to '{new}'"
    assert caught.value.where == f"--set {assigned(path)}"
    key, colon, _ = path.partition(": ")
    if colon:
        asked(f"{key}={new}")
    else:
        assert any(f".{place}".endswith(f".{new}") for place in hints.places(new.rpartition(".")[2]))


@pytest.mark.parametrize(("path", "instead"), hints.REMOVED.items())
def test_what_is_gone_is_answered_with_what_to_use(asked, path, instead):
    with pytest.raises(UserError) as caught:
        asked(assigned(path))
    assert (caught.value.what, caught.value.help) == (f"{path} was removed", instead)


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("goal_of_old", ["goal_of_old=1"]),
        ("train.loss.gone", ["train.loss={choice: [{name: focal, gone: mean}, dice]}"]),
        ("train.tta.crops: 3", ["train.tta.crops=3"]),
        ("train.schedule: linear", ["train.schedule={name: linear}"]),
        ("data.layout: csv", ["data.layout=csv"]),
    ],
)
def test_it_holds_for_keys_and_names_wherever_they_stand(asked, monkeypatch, path: str, written: Sequence[str]):
    monkeypatch.setitem(hints.RENAMED, path, "better")
    with pytest.raises(UserError, match=f"^{path} was renamed to 'better'"):
        asked(*written)


def test_the_keyword_of_values_by_category_is_answered_too(tmp_path):
    path = tmp_path / "question.yaml"
    loss = "loss: {name: focal, category_weights: {each: {uniform: [0, 1]}}}"
    path.write_text(SPACE.replace("loss: cross_entropy", loss))
    with pytest.raises(UserError, match="each was renamed to 'per_category'"):
        Space(read(path), ["garment"])
