"""Files of labels as they are handed out: each is read as meant, or refused in the words of a golden file.

SWEEP_GOLDEN=1 writes the words anew.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import golden
from tests.support.datasets import put
from trainers.data import layouts
from trainers.data.table import Row, spans
from trainers.data_config import DataConfig
from trainers.support.errors import DataError, Fault

GOLDEN = Path(__file__).parent / "golden"


def cycle(pattern: str, count: int = 12, **values: Sequence[object]) -> str:
    """Lines of `pattern`, in which {k} counts from 0 and each name takes its values in turn."""
    lines = [
        pattern.format(k=k, **{name: those[k % len(those)] for name, those in values.items()}) for k in range(count)
    ]
    return "\n".join(lines) + "\n"


SPLITS = ("train", "train", "train", "val")  # three in four
KINDS = ("coat", "coat", "skirt", "coat", "skirt", "coat", "coat", "skirt")
COLOURS = ("red", "blue", "red", "red", "blue", "blue", "blue", "red", "red")


@dataclass(frozen=True)
class Dialect:
    """What lies in the folder, what `data` says, and what comes of it: categories and the first row, or a fault."""

    files: dict[str, str | bytes]
    data: dict[str, Any] = field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] | None = None
    first: dict[str, Any] = field(default_factory=dict)
    fault: str = ""


def table(text: str, **data: Any) -> dict[str, Any]:
    return {"files": {"labels.csv": text}, "data": data}


GARMENTS = {"kind": ("coat", "skirt"), "colour": ("blue", "red")}
PLAIN = "path,split,kind,colour\n" + cycle("{k}.jpg,{s},{a},{b}", s=SPLITS, a=KINDS, b=COLOURS)
SHOP = "id;file_name;garment_type;audience;price\n" + cycle(
    "{k};photos/{k}.jpg;{a};{b};{k},90", 16, a=KINDS, b=("men", "", "women", "NA", "women", "men")
)
STYLES = "id,gender,articleType,season,productDisplayName\n" + cycle(
    '{k},{a},{b},{c},"Shirt, no. {k}"', 16, a=("Men", "Women"), b=KINDS, c=("Summer", "NA", "Fall")
)
TALL = "image,attribute,value\n" + "".join(
    f"{k}.jpg,{name},{values[k % len(values)]}\n"
    for k in range(12)
    for name, values in (("kind", KINDS), ("colour", COLOURS))
)
CELEBA = "image_id,Smiling,Hat,Beard,partition\n" + cycle(
    "{k:06}.jpg,{a},{b},{c},{s}", 12, a=(1, -1, 1), b=(-1, -1, 1, 1), c=(-1, 1, -1, -1, -1), s=(0, 0, 0, 1, 2)
)
CHEXPERT = "Path,Sex,Edema,Effusion\n" + cycle(
    "{k}.jpg,{x},{a},{b}", 15, x=("Male", "Female"), a=("1.0", "0.0", "", "-1.0"), b=("0.0", "0.0", "1.0", "")
)
TAGS = "path,split,kind,material\n" + cycle(
    "{k}.jpg,{s},{a},{m}", 16, s=SPLITS, a=KINDS, m=("cotton|silk", "cotton", "wool|silk", "", "none", "wool", "silk")
)
PLANET = "image_name,tags\n" + cycle(
    "train_{k},{m}", 12, m=("haze primary", "clear primary water", "clear", "haze water")
)
POSTERS = "Id,Genre\n" + cycle('p{k},"{m}"', 12, m=("['Action', 'Drama']", "['Drama']", "[]", "['Action', 'Comedy']"))
FLAGS = "path,split,kind,cotton,silk,wool\n" + cycle(
    "{k}.jpg,{s},{a},{x},{y},{z}",
    16,
    s=SPLITS,
    a=KINDS,
    x=("1", "0", "1"),
    y=("True", "False"),
    z=("0", "", "0", "0", "1"),
)
SIZES = "path,split,size\n" + cycle("{k}.jpg,{s},{a}", 16, s=SPLITS, a=("S", "XL", "M", "S", "L", "S", "XL"))
RARE = "path,split,kind\n" + cycle("{k}.jpg,{s},{a}", 16, s=SPLITS, a=KINDS) + "r1.jpg,train,cape\nr2.jpg,train,hat\n"
VAL_ONLY = (
    "path,split,kind\n" + cycle("{k}.jpg,{s},{a}", 16, s=SPLITS, a=KINDS) + "r1.jpg,val,cape\nr2.jpg,val,cape\n"
)
FOLDS = "path,fold,kind\n" + cycle("{k}.jpg,{f},{a}", 15, f=range(5), a=KINDS)
TRAIN = "image_id,kind,colour\n" + cycle("img{k},{a},{b}", 12, a=KINDS, b=COLOURS)
BOXES = "filename,width,height,class,xmin,ymin,xmax,ymax\n" + "".join(
    f"{k // 3}.jpg,64,64,{KINDS[k % 8]},{k % 5},{k % 7},{20 + k % 9},{30 + k % 4}\n" for k in range(24)
)
TRUTH = "path,split,kind\n" + cycle(
    "{k}.jpg,{s},{a}", 12, s=SPLITS, a=("coat", "none", "skirt", "coat", "?", "unknown", "none", "?", "unknown")
)
MATERIAL = {"kind": ("coat", "skirt"), "material": ("cotton", "silk", "wool")}


def parquet() -> bytes:
    """The plain table as pandas writes it, with blanks, numbers and a list."""
    arrow, written = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = arrow.BufferOutputStream()
    count = 12
    columns = {
        "path": [f"{k}.jpg" for k in range(count)],
        "split": [SPLITS[k % 4] for k in range(count)],
        "kind": [KINDS[k % 8] if k % 5 else None for k in range(count)],
        "sleeves": [k % 2 == 0 for k in range(count)],
        "year": [2019 + k % 3 for k in range(count)],
        "tags": [[["new"], ["new", "sale"], []][k % 3] for k in range(count)],
        "image": [{"bytes": b"", "path": f"{k}.jpg"} for k in range(count)],
    }
    written.write_table(arrow.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


DIALECTS: dict[str, Dialect] = {
    # ------------------------------------------------------------------------- separators, encodings, wrappings
    "plain": Dialect(**table(PLAIN), categories=GARMENTS, first={"kind": "coat", "colour": "red"}),
    "excel_in_german": Dialect(
        {"labels.csv": PLAIN.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig")}, categories=GARMENTS
    ),
    "excel_unicode_text": Dialect(
        {"labels.txt": PLAIN.replace(",", "\t").encode("utf-16")}, {"labels": "labels.txt"}, GARMENTS
    ),
    "tsv": Dialect({"labels.tsv": PLAIN.replace(",", "\t")}, {"labels": "labels.tsv"}, GARMENTS),
    "separator_declared": Dialect({"labels.csv": "sep=|\n" + PLAIN.replace(",", "|")}, categories=GARMENTS),
    "windows_1252": Dialect({"labels.csv": PLAIN.replace("blue", "grün").encode("cp1252")}, fault="not UTF-8 text"),
    "spreadsheet": Dialect(
        {"labels.xlsx": b"PK\x03\x04"}, {"labels": "labels.xlsx"}, fault="a spreadsheet, not a text file"
    ),
    "gzip": Dialect({"labels.csv.gz": b"\x1f\x8b\x08"}, {"labels": "labels.csv.gz"}, fault="an archive"),
    "zip_of_csv": Dialect({"labels.zip": b"PK\x03\x04"}, {"labels": "labels.zip"}, fault="an archive"),
    "json_lines": Dialect(
        {"labels.jsonl": '{"path": "1.jpg"}\n'}, {"labels": "labels.jsonl"}, fault=".jsonl is not a table format"
    ),
    "no_header": Dialect({"labels.csv": PLAIN.partition("\n")[2]}, fault="no column 'path'"),
    "pandas_index": Dialect(
        {"labels.csv": "Unnamed: 0," + "\n".join(f"{k},{line}" for k, line in enumerate(PLAIN.splitlines()))[2:]},
        fault="'Unnamed: 0' has 12 values in 12 rows",
    ),
    # ---------------------------------------------------------------------------------------- columns of paths
    "shop_export": Dialect(**table(SHOP), fault="no column 'path'"),
    "shop_export_named": Dialect(
        **table(SHOP, path="file_name", ignore=["id", "price"], val_share=0.25),
        categories={"garment_type": ("coat", "skirt"), "audience": ("men", "women")},
        first={"garment_type": "coat", "audience": "men"},
    ),
    "fashion_product_images": Dialect(
        **table(STYLES, path="images/{id}.jpg", ignore=["productDisplayName"]),
        categories={"gender": ("Men", "Women"), "articleType": ("coat", "skirt"), "season": ("Fall", "Summer")},
        first={"path": "images/0.jpg", "season": "Summer"},
    ),
    "padded_numbers": Dialect(
        **table("nr,kind\n" + cycle("{k},{a}", a=KINDS), path="{kind}/img_{nr:05d}.png"),
        categories={"kind": ("coat", "skirt")},
        first={"path": "coat/img_00000.png"},
    ),
    "pattern_of_an_unknown_field": Dialect(
        **table(STYLES, path="images/{ID}.jpg"), fault="no column 'ID', a field of"
    ),
    "path_of_an_unknown_column": Dialect(**table(SHOP, path="file_nmae"), fault="no column 'file_nmae'"),
    "ids_in_two_folders": Dialect(
        {"meta.csv": TRAIN, **{f"part_{k % 2 + 1}/img{k}.jpg": b"" for k in range(12)}},
        {"labels": "meta.csv", "path": "image_id"},
        GARMENTS,
        {"path": "part_1/img0.jpg"},
    ),
    "windows_paths": Dialect(
        **table(PLAIN.replace(".jpg", ".jpg").replace("\n", "\nphotos\\")[: -len("photos\\")]),
        categories=GARMENTS,
        first={"path": "photos/0.jpg"},
    ),
    "windows_drive": Dialect(
        **table(PLAIN.replace("\n", "\nD:\\photos\\")[: -len("D:\\photos\\")]), fault="is refused"
    ),
    "label_studio": Dialect(
        **table("image,id,choice\n" + cycle("/data/upload/1/{k}.jpg,{k},{a}", a=KINDS), path="image", ignore=["id"]),
        fault="the path '/data/upload/1/0.jpg' is refused (12 rows",
    ),
    "vertex": Dialect(
        **table("ml_use,path,kind\n" + cycle("{s},gs://shop/{k}.jpg,{a}", s=SPLITS, a=KINDS), split="ml_use"),
        fault="the path 'gs://shop/0.jpg' is refused (12 rows",
    ),
    # -------------------------------------------------------------------------------------------------- splits
    "competition": Dialect(
        {"train.csv": TRAIN, "test.csv": "image_id\ntest1\ntest2\n"},
        {"labels": {"train": "train.csv", "test": "test.csv"}, "path": "image_id"},
        GARMENTS,
        {"kind": "coat", "colour": "red"},
    ),
    "competition_with_another_column": Dialect(
        {"train.csv": TRAIN, "val.csv": TRAIN.replace("img", "v").replace("colour", "color")},
        {"labels": {"train": "train.csv", "val": "val.csv"}, "path": "image_id"},
        fault="no column 'colour'",
    ),
    "competition_with_folds": Dialect(
        {"train.csv": FOLDS, "test.csv": "path,fold,kind\nt1.jpg,,\nt2.jpg,,\n"},
        {
            "labels": {"train": "train.csv", "test": "test.csv"},
            "split": "fold",
            "split_values": {"0": "val", **dict.fromkeys("1234", "train")},
        },
        {"kind": ("coat", "skirt")},
        {"split": "val"},
    ),
    "folds": Dialect(**table(FOLDS), fault="'fold' is named like a split flag or fold"),
    "folds_unsaid": Dialect(
        **table(FOLDS, split="fold"), fault="the split column has none of train, val and test: 3 '0'"
    ),
    "fastai_is_valid": Dialect(
        **table(
            "name,kind,is_valid\n" + cycle("{k}.jpg,{a},{v}", a=KINDS, v=("False", "False", "False", "True")),
            path="name",
            split="is_valid",
            split_values={"True": "val", "False": "train"},
        ),
        categories={"kind": ("coat", "skirt")},
        first={"split": "train"},
    ),
    "usage_of_fer": Dialect(
        **table(
            "path,Usage,kind\n"
            + cycle("{k}.jpg,{s},{a}", s=("Training", "Training", "PublicTest", "PrivateTest"), a=KINDS)
        ),
        fault="'Usage' holds the names of splits",
    ),
    "split_that_is_not_meant": Dialect(
        **table(PLAIN, split=None, ignore=["split"]), categories=GARMENTS, first={"colour": "red"}
    ),
    "split_of_an_unknown_column": Dialect(**table(PLAIN, split="fold"), fault="no column 'fold'"),
    "class_of_val_alone": Dialect(**table(VAL_ONLY), fault="'cape' of kind has 2 images in val and none in train"),
    # ------------------------------------------------------------------------------------------- missing answers
    "blank_in_train": Dialect(
        **table("path,split,kind,colour\n" + cycle("{k}.jpg,{s},{a},{b}", s=SPLITS, a=KINDS, b=("", "", "", "red"))),
        fault="no row of train has an answer in 'colour'",
    ),
    "one_class_left_in_train": Dialect(
        **table(
            "path,split,kind,colour\n"
            + cycle("{k}.jpg,{s},{a},{b}", s=SPLITS, a=KINDS, b=("red", "red", "NA", "red"))
            + "t.jpg,test,coat,blue\n"
        ),
        fault="train has only one class of 'colour'",
    ),
    "words_that_are_classes": Dialect(**table(TRUTH), categories={"kind": ("?", "coat", "none", "skirt", "unknown")}),
    "words_that_are_missing": Dialect(
        **table(TRUTH, missing=["?", "Unknown"]), categories={"kind": ("coat", "none", "skirt")}
    ),
    "na_is_a_class": Dialect(
        **table(
            "path,split,region\n" + cycle("{k}.jpg,{s},{a}", s=SPLITS, a=("NA", "EU", "NA")),
            classes={"region": ["NA", "EU"]},
        ),
        categories={"region": ("NA", "EU")},
        first={"region": "NA"},
    ),
    # ------------------------------------------------------------------------------------------ several answers
    "prices_with_a_comma": Dialect(
        **table(
            "path;split;kind;price\n"
            + cycle("{k}.jpg;{s};{a};{b}", s=SPLITS, a=KINDS, b=("19,90", "24,50", "10,24", "19,24", "24,90"))
        ),
        fault="'price' has 5 values in 12 rows, numbers such as '10,24'",
    ),
    "tags_undeclared": Dialect(**table(TAGS), fault="'material' holds several answers separated by |"),
    "tags": Dialect(**table(TAGS, multi=["material"]), categories=MATERIAL, first={"material": {"cotton", "silk"}}),
    "tags_one_by_one": Dialect(**table(TAGS, multi=["kind"], ignore=["material"]), fault="'kind' is in data.multi"),
    "tags_with_another_separator": Dialect(
        **table(TAGS.replace("|", "; ").replace("none", "wool"), multi=["material"]),
        fault="'material' is in data.multi, but each cell has one answer",
    ),
    "tags_beside_a_missing_word": Dialect(
        **table(TAGS.replace("wool|silk", "wool|NA"), multi=["material"]),
        fault="'material' has cells that mix answers with the word for none or for a missing answer: 2 'wool|NA'",
    ),
    "planet": Dialect(
        **table(PLANET, path="image_name", multi=["tags"], multi_separator=" "),
        categories={"tags": ("clear", "haze", "primary", "water")},
        first={"tags": {"haze", "primary"}},
    ),
    "movie_posters": Dialect(
        **table(POSTERS, path="Id", multi=["Genre"]),
        categories={"Genre": ("Action", "Comedy", "Drama")},
        first={"Genre": {"Action", "Drama"}},
    ),
    "flags": Dialect(
        **table(FLAGS, multi={"material": ["cotton", "silk", "wool"]}),
        categories=MATERIAL,
        first={"material": {"cotton", "silk"}},
    ),
    "celeba": Dialect(
        **table(
            CELEBA,
            path="image_id",
            split="partition",
            split_values={"0": "train", "1": "val", "2": "test"},
            multi={"attributes": ["Smiling", "Hat", "Beard"]},
        ),
        categories={"attributes": ("Smiling", "Hat", "Beard")},
        first={"attributes": {"Smiling"}},
    ),
    "chexpert": Dialect(
        **table(CHEXPERT, path="Path", multi={"findings": ["Edema", "Effusion"]}),
        fault="the column 'Edema' has cells that are not flags",
    ),
    "chexpert_uncertain_is_missing": Dialect(
        **table(CHEXPERT, path="Path", multi={"findings": ["Edema", "Effusion"]}, missing=[-1]),
        categories={"Sex": ("Female", "Male"), "findings": ("Edema", "Effusion")},
        first={"findings": {"Edema"}},
    ),
    "plant_pathology_one_hot": Dialect(
        **table(
            "image_id,healthy,rust,scab\n" + cycle("t{k},{a},{b},{c}", a=(1, 0, 0), b=(0, 1, 0), c=(0, 0, 1)),
            path="image_id",
            multi={"disease": ["healthy", "rust", "scab"]},
        ),
        fault="every row has exactly one flag set",
    ),
    "flags_of_unknown_columns": Dialect(
        **table(FLAGS, multi={"material": ["cotton", "silk", "wol"]}), fault="no column 'wol'"
    ),
    # --------------------------------------------------------------------------------------------------- classes
    "sizes_in_order": Dialect(
        **table(SIZES, classes={"size": ["S", "M", "L", "XL"]}), categories={"size": ("S", "M", "L", "XL")}
    ),
    "sizes_not_all_named": Dialect(
        **table(SIZES, classes={"size": ["S", "M", "L", "XS"]}), fault="that data.classes does not name: 5 'XL'"
    ),
    "rare_refused": Dialect(
        **table(RARE, min_count=3), fault="classes of 'kind' with fewer than 3 rows in train: 1 'cape', 1 'hat'"
    ),
    "rare_ignored": Dialect(**table(RARE, min_count=3, rare="ignore"), categories={"kind": ("coat", "skirt")}),
    # ------------------------------------------------------------------------------------------ groups and weights
    "products_and_weights": Dialect(
        **table(
            "path;split;product;weight;kind\n"
            + cycle("{k}.jpg;{s};p{p};{w};{a}", s=SPLITS, p=(0, 2, 2, 1), w=("1,5", "0", "2"), a=KINDS),
            group="product",
            sample_weight="weight",
        ),
        categories={"kind": ("coat", "skirt")},
        first={"group": "p0", "weight": 1.5},
    ),
    "negative_weights": Dialect(
        **table(
            "path,split,w,kind\n" + cycle("{k}.jpg,{s},{w},{a}", s=SPLITS, w=("1", "-2", ""), a=KINDS),
            sample_weight="w",
        ),
        fault="the weight '-2' in 'w' is not a number of 0 or more",
    ),
    # ------------------------------------------------------------------------------------------------ tall tables
    "tall": Dialect(
        **table(TALL, path="image"), fault="12 images in 24 rows: one row for each image and 'attribute'"
    ),
    "tall_tags": Dialect(
        **table(
            "ImageID,LabelName\n" + "".join(f"i{k // 2},{KINDS[k % 2 + 1]}{k % 2}\n" for k in range(24)),
            path="ImageID",
        ),
        fault="12 images in 24 rows: one row for each answer in 'LabelName'",
    ),
    "boxes": Dialect(**table(BOXES, path="filename", ignore=["width", "height"]), fault="is listed twice"),
}


def lines(found: layouts.Scan) -> Iterator[str]:
    """What was read and is to be said, as a person would check it."""
    yield " ".join(f"{split} {len(found.table.split(split))}" for split in ("train", "val", "test"))
    for category in found.table.categories:
        yield f"{category.name}{' (several)' * category.multi}: {', '.join(category.classes)}"
    for row in found.table.rows[:5]:
        more = "".join(
            f", {key} {value}"
            for key, value in (("group", row.group), ("weight", row.weight))
            if value not in (None, 1)
        )
        yield f"{row.where} {row.path} {row.split} {row.labels}{more}"
    yield from told("note", [note for note in found.notes if "standard error" not in note.what])
    yield from told("fault", found.faults)


def read(config: DataConfig) -> layouts.Scan | tuple[Fault, ...]:
    """What was read, or the faults of a file that cannot be opened."""
    try:
        return layouts.scan(config)
    except DataError as error:
        return error.faults


def told(kind: str, remarks: Sequence[Fault]) -> list[str]:
    return [f"{kind}: {one.where}: {one.what}{f' ({one.help})' if one.help else ''}" for one in remarks]


def answers(row: Row, found: layouts.Scan) -> dict[str, Any]:
    """Everything that is known of an image, by name."""
    known: dict[str, Any] = {"path": row.path, "split": row.split, "group": row.group, "weight": row.weight}
    for span in spans(found.table.categories):
        labels, classes = (row.labels or ())[span.labels], span.category.classes
        several = {name for name, flag in zip(classes, labels, strict=False) if flag == 1}
        one = next((classes[k] for k in labels[:1] if k >= 0), None)
        known[span.category.name] = several if span.category.multi else one
    return known


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_read_as_meant_or_refused_in_these_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    dialect = DIALECTS[name]
    monkeypatch.chdir(tmp_path)
    for file, content in dialect.files.items():
        put(tmp_path / "set", file, content)
    config = DataConfig.model_validate({"layout": "table", "root": "set", **dialect.data})
    found = read(config)
    scanned = isinstance(found, layouts.Scan)
    golden.same(GOLDEN / f"{name}.txt", "\n".join(lines(found) if scanned else told("fault", found)) + "\n")
    if dialect.categories is None:
        assert dialect.fault in " ".join(fault.what for fault in (found.faults if scanned else found))
        return
    assert found.faults == []
    assert {one.name: one.classes for one in found.table.categories} == dialect.categories
    known = answers(found.table.rows[0], found)
    assert {key: known[key] for key in dialect.first} == dialect.first


def test_a_parquet_file_is_read_as_its_csv_would_be(tmp_path: Path):
    put(tmp_path, "labels.parquet", parquet())
    data = {"layout": "table", "root": str(tmp_path), "labels": "labels.parquet", "multi": ["tags"]}
    found = layouts.scan(DataConfig.model_validate(data))
    assert found.faults == []
    assert {one.name: one.classes for one in found.table.categories} == {
        "kind": ("coat", "skirt"),
        "sleeves": ("false", "true"),
        "year": ("2019", "2020", "2021"),
        "tags": ("new", "sale"),
    }
    assert [row.labels for row in found.table.rows[:3]] == [(-1, 1, 0, 1, 0), (0, 0, 1, 1, 1), (1, 1, 2, 0, 0)]
    assert "columns without text or numbers are left out: image" in [note.what for note in found.notes]
    assert found.table.rows[0].where == "labels.parquet:1"


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path, "labels.parquet", parquet())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (fault,) = layouts.scan(DataConfig(layout="table", root=str(tmp_path), labels="labels.parquet")).faults
    assert (fault.where, fault.what) == ("labels.parquet", "a Parquet file, but pyarrow is not installed")
    assert fault.help.startswith("pip install pyarrow; or ")


def test_a_torn_parquet_file_is_named(tmp_path: Path):
    put(tmp_path, "labels.parquet", parquet()[:200])
    (fault,) = layouts.scan(DataConfig(layout="table", root=str(tmp_path), labels="labels.parquet")).faults
    assert fault.what.startswith("the Parquet file cannot be read: ")


def test_there_are_dialects_enough():
    assert len(DIALECTS) >= 25
