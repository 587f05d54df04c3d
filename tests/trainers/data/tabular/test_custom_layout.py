"""Layouts of extension files: their rows are those of a table with the same answers, and follow its rules."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainers import extensions
from trainers.data import check, layouts
from trainers.data.table import MISSING, Category, Table
from trainers.data_config import LAYOUTS, DataConfig
from trainers.extensions import ExtensionFile
from trainers.support.errors import DataError, Fault, UserError

ANSWERS = [("red", "long"), ("blue", None), ("red", "short"), ("blue", "long"), ("red", "short"), ("blue", "long")]
SPLITS = ["train", "train", "train", "val", "val", "val"]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    extensions.use([])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for k in range(8):
        Image.new("RGB", (40, 40), (30 * k, 0, 99)).save(tmp_path / f"photos/{k}.jpg")
    return tmp_path / "photos"


def use(tmp_path: Path, body: str, *, signature: str = "root: Path") -> str:
    """A layout with this body in a file; returns where its function begins."""
    lines = ["from pathlib import Path", "", "", f"def mine({signature}):"]
    lines += [*(f"    {line}" for line in body.splitlines()), "", "", 'layouts = {"mine": mine}', ""]
    path = tmp_path / "own.py"
    path.write_text("\n".join(lines))
    extensions.use([ExtensionFile.read(path)], {"layouts": LAYOUTS})
    return f"{path}:4"


def rows(root: Path, **settings: Any) -> Table:
    return layouts.read(DataConfig(layout="mine", root=str(root), **settings))


def faults(root: Path, **settings: Any) -> list[Fault]:
    return layouts.scan(DataConfig(layout="mine", root=str(root), **settings)).faults


def dictionaries() -> list[dict[str, Any]]:
    return [
        {"path": f"{k}.jpg", "split": split, "answers": {"color": color, "sleeve": sleeve}}
        for k, (split, (color, sleeve)) in enumerate(zip(SPLITS, ANSWERS, strict=True))
    ]


def tabled(root: Path, text: str, **settings: Any) -> Table:
    """The same data set from a file of labels."""
    (root / "labels.csv").write_text(text)
    return layouts.read(DataConfig(layout="table", root=str(root), **settings))


def plain(table: Table) -> Table:
    return replace(table, rows=tuple(replace(row, where="") for row in table.rows))


CSV = "path,split,color,sleeve\n" + "".join(
    f"{k}.jpg,{split},{color},{sleeve or ''}\n"
    for k, (split, (color, sleeve)) in enumerate(zip(SPLITS, ANSWERS, strict=True))
)
FORMS = {
    "a list of dictionaries": f"return {dictionaries()!r}",
    "a generator": f"yield from {dictionaries()!r}",
    "tuples": f"return [(row['path'], row['split'], row['answers']) for row in {dictionaries()!r}]",
    "paths below root": f"return [(root / row['path'], row['split'], row['answers']) for row in {dictionaries()!r}]",
    "whole paths": f"return [(str((root / row['path']).resolve()), row['split'], row['answers'])"
    f" for row in {dictionaries()!r}]",
    "a frame of categories": f"""import pandas
rows = {dictionaries()!r}
return pandas.DataFrame([{{'path': row['path'], 'split': row['split'], **row['answers']}} for row in rows])""",
    "a frame of answers": f"import pandas\nreturn pandas.DataFrame({dictionaries()!r})",
    "other words for splits": f"return [{{**row, 'split': row['split'].replace('val', 'valid').upper()}}"
    f" for row in {dictionaries()!r}]",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows_is_the_table_with_the_same_answers(tmp_path: Path, root: Path, form: str):
    use(tmp_path, FORMS[form])
    found, meant = rows(root), tabled(root, CSV)
    assert plain(found) == plain(meant)
    assert found.fingerprint == meant.fingerprint


# -------------------------------------------------------------------------------------------------------- answers
def test_none_and_nan_are_missing_answers(tmp_path: Path, root: Path):
    body = """import math
return [("0.jpg", "train", {"a": "x", "b": "u"}), ("1.jpg", "train", {"a": "y", "b": None}),
        ("2.jpg", "train", {"a": math.nan, "b": "v"}), ("3.jpg", "val", {"a": "x", "b": "u"})]"""
    use(tmp_path, body)
    assert [row.labels for row in rows(root).rows] == [(0, 0), (1, MISSING), (MISSING, 1), (0, 0)]


def test_lists_are_several_answers_whatever_the_names_hold(tmp_path: Path, root: Path):
    names = ['5" wide', "a|b", "it's, so", "[x]", "plain"]
    given = [[names[0], names[1]], {names[2]}, (names[3], names[4]), names, [], None]
    body = f"given = {given!r}\nreturn [(f'{{k}}.jpg', 'val' if k > 3 else 'train', {{'tags': one}})"
    use(tmp_path, f"{body} for k, one in enumerate(given)]")
    found = rows(root)
    assert found.categories == (Category("tags", tuple(sorted(names)), multi=True),)
    shown = [
        row.labels and {name for name, flag in zip(sorted(names), row.labels, strict=True) if flag}
        for row in found.rows
    ]
    assert shown == [set(given[0] or ()), given[1], set(given[2] or ()), set(names), set(), None]


def test_an_empty_list_is_no_class_and_no_news(tmp_path: Path, root: Path):
    use(
        tmp_path,
        "return [(f'{k}.jpg', 'val' if k > 5 else 'train', {'tags': ['a', 'b'][: k % 3]}) for k in range(8)]",
    )
    found = layouts.scan(DataConfig(layout="mine", root=str(root)))
    assert not found.faults
    assert [row.labels for row in found.table.rows[:3]] == [(0, 0), (1, 0), (1, 1)]
    assert not [note for note in found.notes if "no class at all" in note.what]


def test_numbers_and_truths_are_classes_and_numpys_are_the_same(tmp_path: Path, root: Path):
    body = """import numpy as np
made = [10, np.int64(2), "10", 2]
return [(f"{k}.jpg", "val" if k > 1 else "train", {"size": one, "new": k % 2 == 0}) for k, one in enumerate(made)]"""
    use(tmp_path, body)
    assert rows(root).categories == (Category("size", ("2", "10")), Category("new", ("false", "true")))


def test_test_rows_may_have_no_answers(tmp_path: Path, root: Path):
    more = [("6.jpg", "test"), {"path": "7.jpg", "split": "testing"}]
    use(tmp_path, f"return {[*dictionaries(), *more]!r}")
    assert [row.labels for row in rows(root).split("test")] == [None, None]


def test_without_splits_a_share_is_held_out(tmp_path: Path, root: Path):
    use(tmp_path, "return [(f'{k}.jpg', None, {'color': 'red' if k % 2 else 'blue'}) for k in range(8)]")
    found = layouts.scan(DataConfig(layout="mine", root=str(root), val_share=0.25))
    assert (found.held_out, [row.split for row in found.table.rows].count("val")) == (True, 2)
    assert not [note for note in found.notes if "column" in note.what]


# ----------------------------------------------------------------------------------------------------- keys of data
def test_its_arguments_come_from_layout_args_and_the_others_have_their_defaults(tmp_path: Path, root: Path):
    body = """splits = ["val" if k % folds == fold else "train" for k in range(6)]
return [(f"{k}.jpg", split, {"color": "red" if k in (0, 1, 4) else "blue"}) for k, split in enumerate(splits)]"""
    use(tmp_path, body, signature="root: Path, fold: int, folds: int = 3")
    assert [row.path for row in rows(root, layout_args={"fold": 1}).split("val")] == ["1.jpg", "4.jpg"]
    assert [row.path for row in rows(root, layout_args={"fold": 0, "folds": 2}).split("val")] == [
        f"{k}.jpg" for k in (0, 2, 4)
    ]
    one, other = (rows(root, layout_args={"fold": fold}).fingerprint for fold in (1, 2))
    assert one != other


@pytest.mark.parametrize(
    "settings",
    [
        {"classes": {"color": ("red", "blue")}},
        {"categories": ("sleeve", "color")},
        {"ignore": ("sleeve",)},
        {"missing": ("short",), "ignore": ("color",), "classes": {"sleeve": ("long", "other")}},
        {"min_count": 2, "rare": "ignore", "ignore": ("sleeve",)},
        {"split_values": {"train": "val", "val": "train"}},
        {"ignore": ("sleeve",), "group": "color"},
    ],
)
def test_the_keys_of_a_table_mean_the_same(tmp_path: Path, root: Path, settings: dict[str, Any]):
    use(tmp_path, FORMS["tuples"])
    (root / "labels.csv").write_text(CSV)
    mine, meant = (layouts.scan(DataConfig(layout=name, root=str(root), **settings)) for name in ("mine", "table"))
    assert plain(mine.table) == plain(meant.table)
    assert [fault.what for fault in mine.faults] == [fault.what for fault in meant.faults]


@pytest.mark.parametrize("settings", [{"path": "file"}, {"split": "fold"}])
def test_keys_that_name_columns_of_a_file_are_refused(settings: dict[str, str]):
    with pytest.raises(ValueError, match="is for layout table, but the layout is mine"):
        DataConfig(layout="mine", root="x", **settings)


def test_layout_args_without_such_a_layout_are_refused():
    with pytest.raises(ValueError, match="layout_args is for a layout from an extension file"):
        DataConfig(layout="folder", root="x", layout_args={"fold": 1})


# --------------------------------------------------------------------------------------------------------- bad rows
GOOD = "('0.jpg', 'train', {'a': 'x'}), ('1.jpg', 'train', {'a': 'y'}), ('2.jpg', 'val', {'a': 'x'})"
BAD = {
    "('3.jpg', 'tarin', {'a': 'x'})": ("no split 'tarin'", "did you mean 'train'?"),
    "('3.jpg', 5, {'a': 'x'})": ("the split is int", "train, val or test"),
    "('3.jpg', 'val', {})": ("no answer to 'a'", "write None if it is unknown"),
    "('3.jpg', 'val', {'b': 'x', 'a': 'y'})": ("an answer to 'b', which row 1 does not have", "same categories"),
    "('3.jpg', 'val', {'ab': 'x'})": ("an answer to 'ab', which row 1 does not have", "did you mean 'a'?"),
    "('3.jpg', 'val')": ("the answers are None", "only a row of test may have none"),
    "('3.jpg', 'val', 'x')": ("the answers are str", "answers are a dictionary"),
    "('3.jpg', 'val', {'a': b'x'})": ("the answer bytes to 'a'", "a class is a name"),
    "('3.jpg', 'val', {'a': {'x': 1}})": ("the answer dict to 'a'", "a class is a name"),
    "('3.jpg', 'val', {'a': ['x', None]})": ("the answer None to 'a'", "a class is a name"),
    "('3.jpg', 'val', {'a': 'x\\ny'})": ("the answer 'x\\ny' to 'a'", "a class is a name"),
    "('3.jpg', 'val', {'a': 'x', 'split': 'y'})": ("a category cannot be called 'split'", "another name"),
    "(3, 'val', {'a': 'x'})": ("the path is int", "relative to root"),
    "('../3.jpg', 'val', {'a': 'x'})": ("the path '../3.jpg' is refused", "without '..'"),
    "('0.jpg', 'val', {'a': 'x'})": ("'0.jpg' is listed twice in train and val", "first at"),
    "'3.jpg'": ("the row is str", "a row is like"),
    "('3.jpg',)": ("the row is tuple of 1", "a row is like"),
    "{'file': '3.jpg', 'split': 'val'}": ("unknown key 'file'", "path, split, answers"),
    "{'path': '3.jpg', 'split': 'val', 'answer': {'a': 'x'}}": ("unknown key 'answer'", "did you mean 'answers'?"),
    "{'split': 'val', 'answers': {'a': 'x'}}": ("no path", "a row is like"),
}


@pytest.mark.parametrize("row", BAD)
def test_a_wrong_row_is_a_fault_at_the_users_function(tmp_path: Path, root: Path, row: str):
    where = use(tmp_path, f"return [{GOOD}, {row}]")
    what, help = BAD[row]
    (fault, *_) = faults(root)
    assert (fault.where, fault.what) == (f"{where}, row 4", what)
    assert help in fault.help
    with pytest.raises(DataError):
        rows(root)


def test_the_same_fault_in_many_rows_is_one(tmp_path: Path, root: Path):
    where = use(tmp_path, "return [(f'{k}.jpg', 'train', {'a': 'xy'[k % 2]}) for k in range(4)]\\\n"
                          "    + [(f'{k}.jpg', 'vla', {'a': 'x'}) for k in range(4, 8)]")  # fmt: skip
    (fault,) = faults(root)
    assert (fault.where, fault.what) == (where, f"no split 'vla' (4 rows, first {where}, row 5)")


def test_an_image_that_is_not_there_is_a_fault(tmp_path: Path, root: Path):
    where = use(tmp_path, f"return [{GOOD}, ('3.JPG', 'val', {{'a': 'y'}})]")
    (fault,) = check.check(DataConfig(layout="mine", root=str(root))).faults
    assert (fault.where, fault.what, fault.help) == (f"{where}, row 4", "'3.JPG' is missing", "did you mean '3.jpg'?")


RETURNED = {
    "return None": (4, "mine of layouts returns nothing"),
    "return 'labels.csv'": (4, "mine of layouts returns str instead of rows"),
    "return {'a': 1}": (4, "mine of layouts returns dict instead of rows"),
    "return 7": (4, "mine of layouts returns int instead of rows"),
    "x = 1\nreturn {}['color']": (6, "mine of layouts failed: KeyError: 'color'"),
    "yield ('0.jpg', 'train', {})\nraise OSError('no labels')": (6, "mine of layouts failed: OSError: no labels"),
    "import nowhere_at_all": (5, "mine of layouts failed: it needs nowhere_at_all, which is not installed"),
}


@pytest.mark.parametrize("body", RETURNED)
def test_a_function_that_fails_or_returns_no_rows_is_named_with_its_line(tmp_path: Path, root: Path, body: str):
    use(tmp_path, body)
    line, what = RETURNED[body]
    with pytest.raises(UserError) as raised:
        rows(root)
    assert (raised.value.where, raised.value.what) == (f"{tmp_path / 'own.py'}:{line}", what)
    assert (raised.value.exit_code, bool(raised.value.help)) == (2, True)


def test_no_rows_are_a_fault(tmp_path: Path, root: Path):
    where = use(tmp_path, "return []")
    assert (faults(root)[0].where, faults(root)[0].what) == (where, "no rows")


def test_lists_of_one_name_each_are_a_fault(tmp_path: Path, root: Path):
    where = use(tmp_path, "return [(f'{k}.jpg', 'train', {'a': ['xy'[k % 2]]}) for k in range(4)]")
    (fault, *_) = faults(root)
    assert (fault.where, fault.what) == (where, "every list of answers to 'a' has one name")


def test_rows_in_another_order_at_each_call_are_a_fault(tmp_path: Path, root: Path):
    body = """import itertools
rows = [(f"{k}.jpg", "val" if k > 3 else "train", {"a": "xy"[k % 2]}) for k in range(8)]
mine.turn = getattr(mine, "turn", 0) + 1
return rows[mine.turn:] + rows[:mine.turn]"""
    where = use(tmp_path, body)
    (fault,) = check.check(DataConfig(layout="mine", root=str(root))).faults
    assert (fault.where, fault.what) == (where, "mine of layouts returns different rows when it is called again")


# --------------------------------------------------------------------------------------------------- what is known
def test_answers_are_read_anew_when_the_file_or_its_arguments_change(tmp_path: Path, root: Path):
    """What a check remembers is of images alone."""
    cache, seen = tmp_path / "cache", []
    for names in ("xy", "uv"):
        use(tmp_path, f"return [(f'{{k}}.jpg', 'train', {{'a': '{names}'[(k + turn) % 2]}}) for k in range(8)]",
            signature="root: Path, turn: int = 0")  # fmt: skip
        for turn in (0, 1):
            config = DataConfig(layout="mine", root=str(root), layout_args={"turn": turn})
            found = check.check(config, cache=cache)
            assert not found.faults
            seen.append((found.table.categories[0].classes, found.table.rows[0].labels, found.table.fingerprint))
    assert [one[:2] for one in seen] == [
        (("x", "y"), (0,)),
        (("x", "y"), (1,)),
        (("u", "v"), (0,)),
        (("u", "v"), (1,)),
    ]
    assert len({one[2] for one in seen}) == 4


def test_a_layout_whose_file_is_not_in_use_is_named(root: Path):
    with pytest.raises(UserError, match="no extension file defines 'mine' in layouts"):
        rows(root)


def test_the_recipe_keeps_its_arguments(tmp_path: Path):
    config = DataConfig(layout="mine", root="x", layout_args={"fold": 3, "tags": ("a", "b"), "name": None})
    assert DataConfig.model_validate_json(config.model_dump_json()) == config
    assert "layout_args" not in json.loads(DataConfig(layout="folder", root="x").model_dump_json())
