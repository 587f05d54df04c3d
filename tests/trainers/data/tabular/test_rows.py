"""Tables as people have them: read as meant, or refused with the true line, the true cause and what to write."""

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from sweeper.space.space import Space
from sweeper.space.yaml_io import read, recipe_yaml
from tests.support.datasets import faults, put
from trainers.config import Recipe, TrainConfig
from trainers.data import check, layouts
from trainers.data_config import DataConfig
from trainers.support.errors import Fault

HEAD = "path,split,garment,wearer"
GARMENTS, WEARERS = ("skirt", "coat"), ("adult", "child")


def rows(count: int = 12, sep: str = ",") -> list[str]:
    """Two thirds to train on, the rest for val."""
    return [
        sep.join((f"images/{k}.png", "train" if 3 * k < 2 * count else "val", GARMENTS[k % 2], WEARERS[k // 2 % 2]))
        for k in range(count)
    ]


def write(root: Path, header: str, lines: list[str], *, encoding: str = "utf-8", end: str = "\n") -> None:
    put(root, "labels.csv", (end.join([header, *lines]) + end).encode(encoding))


def draw(root: Path, *names: str) -> None:
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, 90, len(name))).save(root / name)


def config(root: Path, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"layout": "table", "root": str(root), **settings})


def categories(root: Path, **settings: object) -> dict[str, tuple[str, ...]]:
    return {c.name: c.classes for c in layouts.read(config(root, **settings)).categories}


def notes(root: Path) -> list[str]:
    """All but the one on a small val, which is test_splitting's."""
    return [note.what for note in layouts.scan(config(root)).notes if "standard error" not in note.what]


def wrong(root: Path, **settings: object) -> list[Fault]:
    return layouts.scan(config(root, **settings)).faults


PLAIN = {"garment": ("coat", "skirt"), "wearer": ("adult", "child")}


# ------------------------------------------------------------------------------------- separator, encoding, quotes
@pytest.mark.parametrize(("sep", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "pipes")])
def test_another_separator_is_found_and_said(tmp_path: Path, sep: str, word: str):
    write(tmp_path, HEAD.replace(",", sep), rows(sep=sep))
    assert categories(tmp_path) == PLAIN
    assert notes(tmp_path) == [f"read as: {word}"]


def test_the_plain_table_is_read_without_a_note(tmp_path: Path):
    write(tmp_path, HEAD, rows())
    assert (categories(tmp_path), notes(tmp_path)) == (PLAIN, [])


def test_commas_and_bars_in_the_cells_do_not_part_the_columns(tmp_path: Path):
    lines = [f"{line};{k},5|a,b" for k, line in enumerate(rows(sep=";"))]
    write(tmp_path, "path;split;garment;wearer;note, short|long", lines)
    assert categories(tmp_path, ignore=["note, short|long"]) == PLAIN


def test_without_a_column_path_the_separator_is_the_one_by_which_lines_have_as_many_cells(tmp_path: Path):
    write(tmp_path, "file;garment, or so;price", [f"{k}.png;skirt;1,50" for k in range(4)])
    (fault,) = wrong(tmp_path)
    assert fault.help == "if 'file' holds the paths, write data: {path: file}"


def test_a_line_that_tells_excel_the_separator_is_obeyed(tmp_path: Path):
    write(tmp_path, "sep=;", [HEAD.replace(",", ";"), *rows(sep=";")])
    assert categories(tmp_path) == PLAIN
    assert layouts.read(config(tmp_path)).rows[0].where == "labels.csv:3"


@pytest.mark.parametrize(
    ("encoding", "end", "said"),
    [
        ("utf-8-sig", "\n", ["read as: UTF-8 with BOM"]),
        ("utf-8", "\r\n", ["read as: Windows line endings"]),
        ("utf-8", "\r", []),
        ("utf-16", "\r\n", ["read as: UTF-16, Windows line endings"]),
        ("utf-32", "\n", ["read as: UTF-32"]),
    ],
)
def test_marks_line_ends_and_encodings_with_a_mark_are_read(tmp_path: Path, encoding: str, end: str, said: list[str]):
    write(tmp_path, HEAD, [line.replace("coat", "größe") for line in rows()], encoding=encoding, end=end)
    assert categories(tmp_path)["garment"] == ("größe", "skirt")
    assert notes(tmp_path) == said


def test_another_encoding_is_named_at_its_line_and_nothing_else_is(tmp_path: Path):
    lines = rows(900)
    lines[700] = lines[700].replace("skirt", "größe")
    write(tmp_path, HEAD, lines, encoding="latin-1", end="\r\n")
    (fault,) = wrong(tmp_path)
    assert (fault.where, fault.what) == ("labels.csv:702", "not UTF-8 text")
    assert "iconv" in fault.help


def test_utf_16_without_its_mark_is_named(tmp_path: Path):
    write(tmp_path, HEAD, rows(), encoding="utf-16-le")
    assert [fault.what for fault in wrong(tmp_path)] == ["UTF-16 text without a byte order mark (BOM)"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({4: '"images/4.png,train,skirt,adult'}, 6),
        ({4: '"images/4.png,train,skirt,adult', 8: '"images/8.png",val,skirt,adult'}, 6),
        ({3: 'images/3.png,train,"coat\n",adult', 4: '"images/4.png,train,skirt,adult'}, 7),
        ({11: 'images/11.png,val,coat,"child'}, 13),
        ({5: 'images/5.png,train,"a\nb ""c"" d","adult'}, 8),
    ],
)
def test_a_quote_that_is_never_closed_is_named_where_it_was_opened(
    tmp_path: Path, changes: dict[int, str], where: int
):
    write(tmp_path, HEAD, [changes.get(k, line) for k, line in enumerate(rows())])
    quote = [fault for fault in wrong(tmp_path) if fault.what.startswith("a quote")]
    assert [(fault.where, fault.what) for fault in quote] == [
        (f"labels.csv:{where}", "a quote is opened here but never closed")
    ]


def test_a_quote_left_open_in_a_large_table_is_named_where_it_was_opened(tmp_path: Path):
    lines = rows(9000)
    lines[7] = '"' + lines[7]
    write(tmp_path, HEAD, lines)
    assert [fault.where for fault in wrong(tmp_path)] == ["labels.csv:9"]


def test_a_quote_closed_by_one_that_was_meant_for_another_cell_is_named(tmp_path: Path):
    lines = rows()
    lines[4], lines[8] = f'"{lines[4]}', 'images/8.png",val,skirt,adult'
    write(tmp_path, HEAD, lines)
    assert [(f.where, f.what) for f in wrong(tmp_path)] == [("labels.csv:6", "a cell spans several lines")]


def test_text_behind_a_closing_quote_is_named(tmp_path: Path):
    lines = rows()
    lines[4] = 'images/4.png,train,"skirt" long,adult'
    write(tmp_path, HEAD, lines)
    assert ("labels.csv:6", "a cell continues after its closing quote") in [
        (f.where, f.what) for f in wrong(tmp_path)
    ]


def test_rows_behind_a_cell_of_several_lines_keep_their_true_lines(tmp_path: Path):
    lines = [f'{line},"one\ntwo {k}"' for k, line in enumerate(rows())]
    lines[3] = "images/3.png,train,coat"
    write(tmp_path, f"{HEAD},text", lines)
    assert [(f.where, f.what) for f in wrong(tmp_path, ignore=["text"])] == [
        ("labels.csv:8", "3 columns, but the header has 5")
    ]


# ------------------------------------------------------------------------------------------------ columns, doubtful
@pytest.mark.parametrize(
    ("name", "value", "figures"),
    [
        ("id", "{}", "12 values in 12 rows"),
        ("sku", "AB-{}", "12 values in 12 rows"),
        ("price", "{}.50", "12 values in 12 rows, numbers such as '0.50'"),
        ("price", "{},50 €", "12 values in 12 rows, numbers such as '0,50 €'"),
        ("uploaded", "2021-03-04 10:{}", "12 values in 12 rows, dates such as '2021-03-04 10:0'"),
        ("month", "01.02.2021", "1 values in 12 rows, dates such as '01.02.2021'"),
        ("weight", "1.5", "1 values in 12 rows, numbers such as '1.5'"),
        ("month", "2021-{:02}", "12 values in 12 rows, dates such as '2021-00'"),
        ("taken", "{}/3/21", "12 values in 12 rows, dates such as '0/3/21'"),
        ("fat", "10%", "1 values in 12 rows, numbers such as '10%'"),
        ("batch", "3f" * 16, f"1 values in 12 rows, hashes such as '{'3f' * 16}'"),
        ("text", "long " * 20, "1 values in 12 rows, long texts"),
    ],
)
def test_a_column_that_looks_like_no_category_is_a_fault_with_the_line_to_write(
    tmp_path: Path, name: str, value: str, figures: str
):
    write(tmp_path, f"{HEAD},{name}", [f'{line},"{value.format(k)}"' for k, line in enumerate(rows())])
    (fault,) = wrong(tmp_path)
    assert (fault.where, fault.what) == ("labels.csv:1", f"'{name}' has {figures}: is it a category?")
    assert f"data: {{ignore: [{name}]}}, else data: {{categories: [garment, wearer, {name}]}}" in fault.help
    assert categories(tmp_path, ignore=[name]) == PLAIN


@pytest.mark.parametrize(
    ("values", "separator"),
    [
        (("cotton|silk", "silk", "wool", "none"), "|"),
        (("a;b", "a;c", "b;c"), ";"),
        (("red, blue", "blue", "red", "green"), ","),
        (("['new']", "['new', 'sale']", "['sale']"), "[]"),
        (("S|M", "L"), ""),
        (("Paris, France", "Lyon, France", "Bonn, Germany"), ""),
        (("shirt, long", "shirt", "coat"), ""),
    ],
)
def test_cells_that_hold_several_answers_are_doubtful_where_answers_recur(
    tmp_path: Path, values: tuple[str, ...], separator: str
):
    lines = [f'{k}.png,"{values[k % len(values)]}",{GARMENTS[k // 3 % 2]}' for k in range(12)]
    write(tmp_path, "path,tags,kind", lines)
    found = [fault for fault in wrong(tmp_path) if "several answers" in fault.what]
    assert len(found) == bool(separator)
    if separator:
        how = "in lists such as \"['new', 'sale']\"" if separator == "[]" else f"separated by {separator} in "
        assert found[0].what.startswith(f"'tags' holds several answers {how}")
        other = f', multi_separator: "{separator}"' if separator in ";," else ""
        assert f"data: {{multi: [tags]{other}}}" in found[0].help


@pytest.mark.parametrize("name", ["fold", "kfold", "is_valid", "is_train", "in_test"])
def test_a_column_named_like_a_way_to_split_is_doubtful_beside_others_alone(tmp_path: Path, name: str):
    write(tmp_path, f"{HEAD},{name}", [f"{line},{k % 2}" for k, line in enumerate(rows())])
    assert categories(tmp_path, ignore=[name]) == PLAIN
    assert wrong(tmp_path)[0].what.startswith(f"'{name}' ")
    write(tmp_path, f"path,{name}", [f"{k}.png,{k % 2}" for k in range(12)])
    assert list(categories(tmp_path)) == [name]


def test_the_classes_of_another_column_under_other_names_are_doubtful(tmp_path: Path):
    lines = [f"{line},{GARMENTS.index(line.split(',')[2])}" for line in rows()]
    write(tmp_path, f"{HEAD},garment_id", lines)
    (fault,) = wrong(tmp_path)
    assert fault.what == "'garment_id' has the classes of 'garment' under other names: is it a category?"
    assert "{ignore: [garment_id]}" in fault.help


@pytest.mark.parametrize("values", [("Training", "PublicTest", "PrivateTest"), ("train", "public_test", "test")])
def test_splits_of_several_tests_under_another_name_are_no_category(tmp_path: Path, values: tuple[str, ...]):
    write(tmp_path, "path,Usage,kind", [f"{k}.png,{values[k % 3]},{GARMENTS[k % 2]}" for k in range(12)])
    assert "'Usage' holds the names of splits" in wrong(tmp_path)[0].what


def test_all_doubtful_columns_stand_in_one_line_to_write(tmp_path: Path):
    lines = [f"{k},{line},{k}.5,shop {k}" for k, line in enumerate(rows())]
    write(tmp_path, f"nr,{HEAD},price,Shop name", lines)
    assert ['{ignore: [nr, price, "Shop name"]}' in fault.help for fault in wrong(tmp_path)] == [True] * 3


def test_a_column_that_is_listed_as_a_category_is_believed(tmp_path: Path):
    write(tmp_path, f"{HEAD},price", [f"{line},{k % 4}.50" for k, line in enumerate(rows())])
    assert list(categories(tmp_path, categories=["price", "garment"])) == ["price", "garment"]


def test_a_listed_column_of_one_class_is_a_fault(tmp_path: Path):
    write(tmp_path, f"{HEAD},shop", [f"{line},here" for line in rows()])
    (fault,) = wrong(tmp_path, categories=["shop", "garment"])
    assert fault.what == "category 'shop' has 1 class"
    assert "data: {categories: [garment]}" in fault.help


@pytest.mark.parametrize(
    ("count", "classes", "doubtful"),
    [(12, 6, False), (9, 9, False), (12, 9, False), (20, 10, False), (19, 10, True), (10, 10, True), (100, 51, True)],
)
def test_values_are_too_many_from_ten_on_where_a_row_or_two_have_each(
    tmp_path: Path, count: int, classes: int, doubtful: bool
):
    write(tmp_path, "path,kind", [f"{k}.png,kind {k % classes}" for k in range(count)])
    assert any("is it a category?" in fault.what for fault in wrong(tmp_path)) == doubtful


@pytest.mark.parametrize(
    ("value", "doubtful"),
    [
        (lambda k: 199 + 50 * (k % 40), True),  # prices
        (lambda k: 15970 + 31 * (k // 3), True),  # three photographs of an article
        (lambda k: k % 100, False),  # numbered classes
        (lambda k: 10 * (1 + k % 30), False),
        (lambda k: 1960 + k % 60, False),
        (lambda k: f"{k % 5}.0", False),  # whole numbers as pandas writes them beside blanks
        (lambda k: f"{k % 5}.{k % 3}", True),
    ],
)
def test_whole_numbers_are_classes_unless_their_gaps_are_wide(tmp_path: Path, value, doubtful: bool):
    write(tmp_path, "path,kind", [f"{k}.png,{value(k)}" for k in range(300)])
    assert any("is it a category" in fault.what for fault in wrong(tmp_path)) == doubtful


def test_an_index_without_a_name_is_told_in_pandas_words(tmp_path: Path):
    write(tmp_path, f",{HEAD}", [f"{k},{line}" for k, line in enumerate(rows())])
    (fault,) = wrong(tmp_path)
    assert fault.what == "column 1 has no name"
    assert "pandas' index" in fault.help
    assert "index=False" in fault.help


def test_an_index_that_was_saved_twice_is_told_in_pandas_words(tmp_path: Path):
    write(tmp_path, f"Unnamed: 0,{HEAD}", [f"{k},{line}" for k, line in enumerate(rows())])
    (fault,) = wrong(tmp_path)
    assert "index=False" in fault.help
    assert 'data: {ignore: ["Unnamed: 0"]}' in fault.help
    assert categories(tmp_path, ignore=["Unnamed: 0"]) == PLAIN


def test_blank_columns_without_a_name_are_left_out_and_said(tmp_path: Path):
    write(tmp_path, f"{HEAD},,", [f"{line},," for line in rows()])
    assert categories(tmp_path) == PLAIN
    assert notes(tmp_path) == ["2 blank columns without a name: left out"]


# ------------------------------------------------------------------------------------------------- columns, by name
@pytest.mark.parametrize(
    "name", ["Path", "PATH", "filename", "file_name", "Image", "img_path", "paths", "id", "photo"]
)
def test_a_column_of_paths_under_another_name_is_named(tmp_path: Path, name: str):
    ids = [line.replace(".png", "") for line in rows()] if name == "id" else rows()
    write(tmp_path, HEAD.replace("path", name), ids)
    (fault,) = wrong(tmp_path)
    assert fault.help == f"if {name!r} holds the paths, write data: {{path: {name}}}"


def test_a_table_without_a_header_is_told(tmp_path: Path):
    first, *others = rows()
    write(tmp_path, first, others)
    assert "the first line is already an image" in wrong(tmp_path)[0].help


@pytest.mark.parametrize("name", ["Split", "set", "subset"])
def test_a_column_of_splits_under_another_name_is_no_category(tmp_path: Path, name: str):
    write(tmp_path, HEAD.replace("split", name), rows())
    (fault,) = wrong(tmp_path)
    assert fault.what == f"'{name}' holds the names of splits: is it a category?"
    assert fault.help == f"write data: {{split: {name}}}; to leave it out, write data: {{ignore: [{name}]}}"
    assert categories(tmp_path, split=name) == PLAIN


def test_what_to_leave_out_does_not_name_the_column_of_splits(tmp_path: Path):
    lines = [f"{line},{k}" for k, line in enumerate(rows())]
    write(tmp_path, f"{HEAD.replace('split', 'fold')},id", lines)
    helps = {fault.what.split()[0]: fault.help for fault in wrong(tmp_path)}
    assert helps["'fold'"] == "write data: {split: fold}; to leave it out, write data: {ignore: [fold, id]}"
    assert helps["'id'"].startswith("if not, write data: {ignore: [id]}, else ")
    assert categories(tmp_path, split="fold", ignore=["id"]) == PLAIN


def test_a_name_that_is_no_column_suggests_the_one_that_is(tmp_path: Path):
    write(tmp_path, HEAD, rows())
    found = wrong(tmp_path, categories=["garmnet", "wearer", "path"])
    assert [(f.where, f.what, f.help) for f in found] == [
        ("data.categories", "no column 'garmnet' in labels.csv", "did you mean 'garment'?"),
        ("data.categories", "'path' cannot be a category", "data.path uses it: leave it out here"),
    ]
    (fault,) = wrong(tmp_path, ignore=["price"])
    assert (fault.where, fault.help) == ("data.ignore", "the columns are path, split, garment, wearer")


def test_the_order_of_the_categories_is_the_recipes_and_belongs_to_the_fingerprint(tmp_path: Path):
    write(tmp_path, HEAD, rows())
    asked = [{}, {"categories": ["garment", "wearer"]}, {"categories": ["wearer", "garment"]}, {"ignore": ["wearer"]}]
    tables = [layouts.read(config(tmp_path, **settings)) for settings in asked]
    assert tables[0].fingerprint == tables[1].fingerprint
    assert len({table.fingerprint for table in tables}) == 3
    assert tables[2].rows[1].labels == (0, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"categories": ("kind", "in the sea")},
        {"ignore": ("no", "1", 'a "b"')},
        {"labels": {"train": "a.csv", "test": "b.csv"}, "path": "images/{id:05}.jpg"},
        {"split": None},
        {"split": "fold", "split_values": {"0": "val", "true": "train"}},
        {"multi": ("tags", "in the sea"), "multi_separator": "; "},
        {"multi": {"tags": ("cotton", "1"), "material": ()}},
        {"missing": ("-1", "none_set", "null", "?")},
        {"missing": ()},
        {"classes": {"size": ("36", "37.5", "XL")}, "min_count": 3, "rare": "ignore"},
        {"group": "product", "sample_weight": "weight"},
    ],
)
def test_the_keys_are_part_of_what_a_study_asks_and_of_the_best_recipe(tmp_path: Path, settings: dict[str, object]):
    recipe = Recipe(data=config(tmp_path, **settings), train=TrainConfig(backbone="b"))
    (tmp_path / "s.yaml").write_text(recipe_yaml("s", recipe))
    space = Space(read(tmp_path / "s.yaml"), [])
    assert space.recipe({}) == recipe
    assert hash(space.recipe({}).data) == hash(recipe.data)
    data = space.identity()["data"]
    assert {key: data[key] for key in settings} == json.loads(json.dumps(settings))


# ---------------------------------------------------------------------------------------------------- splits, folded
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Training", "dev", "testing"), ("TRAIN", "Validation", "Test"), ("training", "valid", "test")],
)
def test_names_of_splits_are_read_in_any_case(tmp_path: Path, train: str, val: str, test: str):
    lines = [line.replace("train", train).replace("val", val) for line in rows()]
    write(tmp_path, HEAD, [*lines, f"images/12.png,{test},,"])
    found = layouts.read(config(tmp_path))
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [8, 4, 1]


def test_a_wrong_split_in_many_rows_is_one_fault(tmp_path: Path):
    write(tmp_path, HEAD, [line.replace("train", "trian") for line in rows(300)])
    (fault,) = wrong(tmp_path)
    assert fault == Fault("labels.csv", "no split 'trian' (200 rows, first labels.csv:2)", "did you mean 'train'?")


def test_a_blank_column_of_splits_is_none(tmp_path: Path):
    write(tmp_path, HEAD, [line.replace("train", "").replace("val", "") for line in rows()])
    assert layouts.read(config(tmp_path)).split("val")
    assert notes(tmp_path) == ["the column 'split' is blank: 0.2 of train becomes val"]


def test_some_blank_splits_are_one_fault_with_their_number(tmp_path: Path):
    write(tmp_path, HEAD, [line.replace("val", "") for line in rows()])
    (fault,) = wrong(tmp_path)
    assert fault.what == "no split in 4 of 12 rows, the first labels.csv:10"
    assert "leave the whole column blank" in fault.help


def test_a_row_tells_every_fault_it_has(tmp_path: Path):
    write(tmp_path, HEAD, ["/far/0.png,trian,,adult", *rows()])
    assert {fault.what for fault in wrong(tmp_path)} == {"no split 'trian'", "the path '/far/0.png' is refused"}


def test_absolute_paths_and_backslashes_are_made_relative_and_said(tmp_path: Path):
    lines = [line.replace("/", "\\") if k % 2 else f"{tmp_path}/{line}" for k, line in enumerate(rows())]
    write(tmp_path, HEAD, lines)
    assert [row.path for row in layouts.read(config(tmp_path)).rows] == [f"images/{k}.png" for k in range(12)]
    (said,) = notes(tmp_path)
    assert said.startswith("paths are made relative (6 absolute, 6 with backslashes): ")


def test_a_file_whose_name_holds_a_backslash_is_refused_as_before(tmp_path: Path):
    draw(tmp_path, "images\\0.png")
    write(tmp_path, HEAD, [line.replace("/", "\\") if k == 0 else line for k, line in enumerate(rows())])
    assert [fault.help for fault in wrong(tmp_path)] == ["folders are separated by /"]


@pytest.mark.parametrize(
    ("front", "help"),
    [
        ("/elsewhere/", "paths are relative to the data set, without '..'"),
        ("C:/photos/", "paths are relative to the data set, without a drive"),
        ("C:\\photos\\", "paths are relative to the data set, without a drive"),
        ("https://example.org/", "a URL, not a file: download the images and write their paths"),
        ("s3://bucket/", "a URL, not a file: download the images and write their paths"),
    ],
)
def test_paths_that_lie_elsewhere_are_one_fault(tmp_path: Path, front: str, help: str):
    write(tmp_path, HEAD, [front + line for line in rows(40)])
    (fault,) = wrong(tmp_path)
    assert (fault.where, fault.help) == ("labels.csv", help)
    assert "(40 rows, first labels.csv:2)" in fault.what


@pytest.mark.parametrize("front", ["/home/anna/photos/", "D:/photos/", "D:\\photos\\"])
def test_paths_of_another_machine_whose_images_lie_here_are_told_what_to_leave_out(tmp_path: Path, front: str):
    draw(tmp_path, *(f"images/{k}.png" for k in range(12)))
    write(tmp_path, HEAD, [front + line for line in rows()])
    (fault,) = wrong(tmp_path)
    assert fault.help == f"paths are relative to the data set: remove {front!r} in front"


def test_blank_paths_are_one_fault(tmp_path: Path):
    write(tmp_path, HEAD, [line if k % 2 else line.partition(".png")[2] for k, line in enumerate(rows(40))])
    assert [(fault.what.rpartition(" (")[2], fault.help) for fault in wrong(tmp_path)] == [
        ("20 rows, first labels.csv:2)", "every row must name an image")
    ]


def test_missing_images_are_named_where_they_are_few_and_counted_where_they_are_many(tmp_path: Path):
    write(tmp_path, HEAD, rows(40))
    draw(tmp_path, *(f"images/{k}.png" for k in range(38)))
    few = check.check(config(tmp_path)).faults
    assert [fault.what for fault in few] == ["'images/38.png' is missing", "'images/39.png' is missing"]
    for k in range(20, 38):
        (tmp_path / f"images/{k}.png").unlink()
    (many,) = check.check(config(tmp_path)).faults
    assert (many.where, many.what) == ("labels.csv", "'images/20.png' is missing (20 rows, first labels.csv:22)")


def test_images_listed_twice_in_two_splits_are_no_tall_table(tmp_path: Path):
    again = [line.replace(",train,", ",test,").replace(",val,", ",test,") for line in rows()]
    write(tmp_path, HEAD, [*rows(), *again])
    assert {fault.what.partition("' ")[2] for fault in wrong(tmp_path)} == {
        "is listed twice in train and test",
        "is listed twice in val and test",
    }


@pytest.mark.parametrize(
    ("own", "what"), [("train", "'train' in the file that data.labels names for test"), ("tset", "no split 'tset'")]
)
def test_a_file_of_test_whose_rows_say_another_split_is_refused(tmp_path: Path, own: str, what: str):
    put(tmp_path, "train.csv", "\n".join([HEAD, *rows()]))
    put(tmp_path, "test.csv", f"path,split\na.png,{own}\nb.png,\n")
    (fault, *_) = wrong(tmp_path, labels={"train": "train.csv", "test": "test.csv"})
    assert (fault.where, fault.what) == ("test.csv:2", what)


def test_rows_of_the_file_of_train_may_be_val(tmp_path: Path):
    put(tmp_path, "train.csv", "\n".join([HEAD, *rows()]))
    put(tmp_path, "test.csv", "path\na.png\n")
    found = layouts.read(config(tmp_path, labels={"train": "train.csv", "test": "test.csv"}))
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [8, 4, 1]
    assert found.split("test")[0].labels is None


# ------------------------------------------------------------------------------- missing and several answers, weights
FLAGS = "path,split,kind,cotton,silk,wool"


def flagged(*flags: str) -> list[str]:
    return [
        f"{k}.png,{'val' if k % 4 == 3 else 'train'},{GARMENTS[k % 2]},{flags[k % len(flags)]}" for k in range(12)
    ]


TAGS = {"tags": ["cotton", "silk", "wool"]}


def test_a_row_of_zeros_is_no_class_at_all_or_missing_where_that_is_said(tmp_path: Path):
    write(tmp_path, FLAGS, flagged("1,1,0", "0,0,0", "0,1,1", "1,0,0", "0,0,1"))
    labels = [row.labels for row in layouts.read(config(tmp_path, multi=TAGS)).rows[:2]]
    assert labels == [(1, 1, 1, 0), (0, 0, 0, 0)]
    labels = [row.labels for row in layouts.read(config(tmp_path, multi=TAGS, missing=["none_set"])).rows[:2]]
    assert labels == [(1, 1, 1, 0), (0, -1, -1, -1)]


def test_words_for_no_class_are_missing_where_that_is_said(tmp_path: Path):
    cells = ("cotton|silk", "none", "silk|wool", "[]", "NA", "wool|cotton")
    write(tmp_path, "path,split,kind,tags", flagged(*cells))
    plain = layouts.read(config(tmp_path, multi=["tags"]))
    assert [row.labels for row in plain.rows[1:5]] == [
        (0, 0, 0, 0),
        (1, 0, 1, 1),
        (0, 0, 0, 0),
        (1, -1, -1, -1),
    ]
    strict = layouts.read(config(tmp_path, multi=["tags"], missing=["none_set"]))
    assert [row.labels for row in strict.rows[1:5]] == [
        (0, -1, -1, -1),
        (1, 0, 1, 1),
        (0, -1, -1, -1),
        (1, -1, -1, -1),
    ]


def test_none_is_a_class_where_classes_names_it(tmp_path: Path):
    write(tmp_path, "path,split,kind,tags", flagged("cotton|silk", "none", "silk", "none|cotton"))
    found = layouts.read(config(tmp_path, multi=["tags"], classes={"tags": ["none", "cotton", "silk"]}))
    assert [row.labels for row in found.rows[:2]] == [(1, 0, 1, 1), (0, 1, 0, 0)]


def test_the_columns_of_a_category_may_have_another_order_and_none_is_added(tmp_path: Path):
    write(tmp_path, FLAGS, flagged("1,1,0", "0,0,0", "0,1,1"))
    found = layouts.read(config(tmp_path, multi=TAGS, classes={"tags": ["wool", "cotton", "silk"]}))
    assert found.rows[0].labels == (1, 0, 1, 1)
    (fault,) = wrong(tmp_path, multi=TAGS, classes={"tags": ["wool", "cotton", "silk", "linen"]})
    assert (fault.where, fault.what) == ("data.classes", "'linen' is not a column of 'tags'")
    assert [f.what for f in wrong(tmp_path, multi=TAGS, classes={"tags": ["wool", "cotton"]})] == [
        "classes of 'tags' that data.classes does not name: 8 'silk'"
    ]


def test_what_leaves_a_category_of_several_columns_out_names_the_columns(tmp_path: Path):
    write(tmp_path, FLAGS, flagged(",,"))
    found = wrong(tmp_path, multi=TAGS)
    assert [fault.help.partition("; or")[0] for fault in found] == [
        "to leave it out, write data: {ignore: [cotton, silk, wool]} without multi"
    ]


def test_classes_and_multi_name_columns_that_are_there_and_no_others(tmp_path: Path):
    write(tmp_path, HEAD, rows())
    asked = {"classes": {"garmnet": ["coat"]}, "multi": ["wearer", "path"], "group": "prodct", "sample_weight": "w"}
    assert {(fault.where, fault.what) for fault in wrong(tmp_path, **asked)} >= {
        ("data.classes", "no column 'garmnet' in labels.csv"),
        ("data.multi", "'path' cannot be a category"),
        ("data.group", "no column 'prodct' in labels.csv"),
        ("data.sample_weight", "no column 'w' in labels.csv"),
    }


def test_weights_that_are_all_zero_are_refused(tmp_path: Path):
    write(tmp_path, f"{HEAD},w", [f"{line},0" for line in rows()])
    assert [fault.what for fault in wrong(tmp_path, sample_weight="w")] == ["every weight in 'w' is 0"]


@pytest.mark.parametrize(
    ("cell", "weight"), [("2", 2), ("0,5", 0.5), (".25", 0.25), ("1e-3", 0.001), ("+3", 3), ("1.", 1)]
)
def test_weights_are_numbers_with_a_point_or_a_comma(tmp_path: Path, cell: str, weight: float):
    write(tmp_path, f"{HEAD};w".replace(",", ";"), [f"{line};{cell}" for line in rows(sep=";")])
    assert layouts.read(config(tmp_path, sample_weight="w")).rows[0].weight == weight


@pytest.mark.parametrize("cell", ["-1", "inf", "nan", "one", "1,000.5", "1e400", ""])
def test_weights_that_are_none_are_refused(tmp_path: Path, cell: str):
    write(tmp_path, f"{HEAD};w".replace(",", ";"), [f"{line};{cell}" for line in rows(sep=";")])
    (fault,) = wrong(tmp_path, sample_weight="w")
    assert "(8 rows, first labels.csv:2)" in fault.what or "(12 rows, first labels.csv:2)" in fault.what


def test_a_blank_group_is_a_group_of_its_own(tmp_path: Path):
    write(tmp_path, f"{HEAD},product", [f"{line},{('', 'A', 'NA', 'A')[k % 4]}" for k, line in enumerate(rows())])
    found = layouts.scan(config(tmp_path, group="product", split=None, ignore=["split"]))
    assert [row.group for row in found.table.rows[:4]] == [None, "A", None, "A"]


# ---------------------------------------------------------------------------------------------- ids without an ending
@pytest.mark.parametrize("left", ["images/{}.png", "images/{}", "{}.png", "{}"])
def test_paths_without_folder_or_ending_are_completed_and_said(tmp_path: Path, left: str):
    write(tmp_path, HEAD, [line.replace(f"images/{k}.png", left.format(k)) for k, line in enumerate(rows())])
    draw(tmp_path, *(f"images/{k}.png" for k in range(12)))
    found = check.check(config(tmp_path))
    assert found.faults == ()
    assert [row.path for row in layouts.read(config(tmp_path)).rows] == [f"images/{k}.png" for k in range(12)]
    said = [f"paths are completed in 12 rows: '{left.format(0)}' is read as 'images/0.png'"]
    assert notes(tmp_path) == (said if "images" not in left or "png" not in left else [])


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("path", ["{}", "images/{}", "images/{}.png"])
def test_paths_in_another_unicode_form_are_found(tmp_path: Path, written: str, path: str):
    names = ["plain", "café", "naïve"]
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    lines = [f"{unicodedata.normalize(other, path.format(name))},{'xyx'[k]}" for k, name in enumerate(names)]
    write(tmp_path, "path,kind", lines)
    disk = [f"images/{unicodedata.normalize(written, name)}.png" for name in names]
    draw(tmp_path, *disk)
    assert sorted(row.path for row in layouts.read(config(tmp_path)).rows) == sorted(disk)


def test_ids_of_images_with_several_endings_and_deeper_folders_are_completed(tmp_path: Path):
    write(tmp_path, "path,kind", ["train/a.1,x", "train/b,y", "test/b,x", "train/c,y"])
    draw(tmp_path, "data/train/a.1.png", "data/train/b.JPG", "data/test/b.png", "data/train/c.webp")
    paths = [row.path for row in layouts.read(config(tmp_path)).rows]
    assert paths == ["data/train/a.1.png", "data/train/b.JPG", "data/test/b.png", "data/train/c.webp"]


def test_ids_that_can_be_two_images_are_one_fault(tmp_path: Path):
    write(tmp_path, HEAD, [line.replace(f"images/{k}.png", str(k)) for k, line in enumerate(rows())])
    draw(tmp_path, *(f"{folder}/{k}.png" for k in range(12) for folder in ("images", "masks")))
    (fault,) = wrong(tmp_path)
    assert fault.what == "'0' could be 'images/0.png' or 'masks/0.png' (12 rows, first labels.csv:2)"


def test_one_id_listed_with_and_without_its_ending_is_listed_twice(tmp_path: Path):
    write(tmp_path, "path,kind", ["a,x", "b,y", "a.png,x"])
    draw(tmp_path, "a.png", "b.png")
    assert [fault.what for fault in wrong(tmp_path)] == ["'a.png' is listed twice in train"]


def test_an_image_with_another_ending_or_none_is_suggested(tmp_path: Path):
    write(tmp_path, "path,kind", ["a.png,x", "b.jpg,y", "c,x"])
    draw(tmp_path, "a.png", "b.png", "c.png")
    assert [f.help for f in check.check(config(tmp_path)).faults] == [
        "did you mean 'b.png'?",
        "did you mean 'c.png'?",
    ]


def test_no_folder_outside_the_data_set_is_listed_for_a_path(tmp_path: Path):
    draw(tmp_path, "outside/0.png")
    write(tmp_path / "set", HEAD, [line.replace("images/", "../outside/") for line in rows()])
    assert [fault.help for fault in faults(tmp_path / "set", layout="table")] == [
        "paths are relative to the data set, without '..'"
    ]
