"""The images of a training run, and how they are read and framed. Importing this loads no torch."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from trainers.epoch import Part
from trainers.support.files import expanded

Place = Annotated[str, AfterValidator(expanded)]
Fit = Literal["squash", "pad", "center"]


class Framing(NamedTuple):
    """The framing of cached images: squashed to a square, or padded or cropped to the input's aspect ratio."""

    fit: Fit = "squash"
    height: int = 1  # of the input; only the ratio counts
    width: int = 1

    def size(self, longer: int) -> tuple[int, int]:
        """Return the height and width, both even, of images whose longer side is `longer`."""
        most = max(self.height, self.width)
        return 2 * round(longer * self.height / most / 2), 2 * round(longer * self.width / most / 2)

    def shown(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of the part of an original that is shown, in its pixels, padding included."""
        if self.fit == "squash":
            return width, height
        either = max if self.fit == "pad" else min
        across = either(width, height * self.width / self.height)
        return max(1, round(across)), max(1, round(across * self.height / self.width))


MISSING_WORDS = ("NA", "N/A", "NaN", "null")  # beside a blank cell
NONE_SET = "none_set"
TABLE_KEYS = (
    *("path", "split", "split_values", "categories", "ignore", "multi", "multi_separator", "missing", "classes"),
    *("min_count", "rare", "group", "sample_weight"),
)
COLUMN_KEYS = ("path", "split")  # of a file of labels, which custom layouts do not have
OTHER_LAYOUTS = {"multi": ("challenge", "deepfashion"), "missing": ("challenge", "deepfashion")}


def _word(value: Any) -> Any:
    """Return a YAML scalar as the text that it was."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float) else value


Word = Annotated[str, BeforeValidator(_word), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]
"""The content of a table cell: 3, true and null are text there."""


Argument = str | int | float | bool | None
LAYOUTS = ("challenge", "deepfashion", "table", "folder")


class DataConfig(Part):
    """The images and how they are read."""

    layout: str = Field(
        "challenge",
        description="how the folder is laid out: challenge, deepfashion, table or folder (see"
        " docs/reference/data.md), or a layout from an extension file",
        json_schema_extra={"anyOf": [{"enum": list(LAYOUTS)}, {"type": "string"}]},
    )
    layout_args: dict[str, Argument | tuple[Argument, ...]] = Field(
        default_factory=dict,
        exclude_if=lambda value: not value,
        description="arguments for a layout from an extension file",
    )
    root: Place = Field(description="folder of the data set, relative to the current folder or absolute")
    labels: Place | dict[Literal["train", "val", "test"], Place] = Field(
        "labels.csv",
        description="layout table: the file of labels (CSV, TSV or Parquet), relative to root; or one file per split,"
        " as in {train: train.csv, test: test.csv}, where that of test may lack the answers",
    )
    path: str = Field(
        "path",
        description="layout table: the column of image paths, or a pattern with column names in braces, such as"
        " images/{id}.jpg; {id:05} writes 7 as 00007",
    )
    split: str | None = Field(
        "split", description="layout table: the column of splits, used if the table has it; null for none"
    )
    split_values: dict[str, Literal["train", "val", "test"]] | None = Field(
        None, description="layout table: the split of each value of that column, such as {fold_0: val, fold_1: train}"
    )
    categories: tuple[str, ...] | None = Field(
        None, description="layout table: the columns that are categories, in this order; all others are ignored"
    )
    ignore: tuple[str, ...] | None = Field(
        None,
        description="layout table: columns that are not categories; all others are, except those of path, split,"
        " group and sample_weight",
    )
    multi: tuple[str, ...] | dict[str, tuple[str, ...]] | None = Field(
        None,
        description="categories in which an image may have several answers. Layout table: columns with cells such as"
        " cotton|silk; or {tags: [cotton, silk, wool]}, each category with its columns of 0 and 1 (with [], its"
        " single column of such cells). challenge, deepfashion: categories in files of flags",
    )
    multi_separator: str = Field("|", min_length=1, description="layout table: separator of the answers in a cell")
    missing: tuple[Word, ...] | None = Field(
        None,
        description="values that mean a missing answer, regardless of case. Layout table: in addition to a blank"
        " cell, NA, N/A, NaN and null; [] means the blank cell only. challenge, deepfashion: for example -1."
        " none_set: no class at all also means a missing answer, in a category of flags or of several answers",
    )
    classes: dict[str, tuple[Word, ...]] | None = Field(
        None, description="layout table: all classes of a category, in the order you choose, by category name"
    )
    min_count: int | None = Field(
        None, ge=1, description="layout table: a class with fewer images in train is rare; if left out, none is"
    )
    rare: Literal["refuse", "ignore"] = Field(
        "refuse",
        description="layout table: a rare class is an error (refuse), or its answers count as missing (ignore)",
    )
    group: str | None = Field(
        None,
        description="layout table: the column that identifies what an image shows, such as a product; images of the"
        " same one are never in two splits",
    )
    sample_weight: str | None = Field(
        None, description="layout table: the column of each image's loss factor, 0 or above"
    )
    crop: Literal["none", "box"] = Field("none", description="box: crop every image to its bounding box")
    box_margin: float = Field(
        0.0, ge=0, le=1, description="crop box: margin kept around the box, as a share of its longer side"
    )
    val_share: float = Field(
        0.2, gt=0, lt=1, description="share of the images held out for val if the data set names no split"
    )
    split_seed: int = Field(0, ge=0, description="seed of that stratified split")
    size: int | None = Field(
        None,
        ge=32,
        multiple_of=32,
        description="side in pixels of the images in the cache; if left out, it follows from the space: image_size"
        " divided by the side of the smallest random crop, but no larger than the originals",
    )

    cache: Literal["auto", "raw", "jpeg"] = Field(
        "auto",
        description="format of the cache: raw pixels, or JPEG of quality 95, a fifth to a tenth the size but slower"
        " to read; auto uses raw pixels if they fit the free disk space and the memory",
    )

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # some keys are mappings

    @model_validator(mode="after")
    def _layout(self) -> "DataConfig":
        if self.layout_args and self.layout in LAYOUTS:
            raise ValueError(f"layout_args is for a layout from an extension file, but the layout is {self.layout}")
        for key in TABLE_KEYS:
            allowed = OTHER_LAYOUTS.get(key, ())
            fits = self.layout in ("table", *allowed) or (self.is_tabular and key not in COLUMN_KEYS)
            if not fits and getattr(self, key) != type(self).model_fields[key].default:
                names = " and ".join(("table", *allowed))
                raise ValueError(f"{key} is for layout {names}, but the layout is {self.layout}: leave it out")
        if not self.is_tabular and isinstance(self.multi, dict):
            raise ValueError(f"multi must be a list of categories in layout {self.layout}")
        return self

    @model_validator(mode="after")
    def _columns(self) -> "DataConfig":
        names = {"categories": self.categories, "ignore": self.ignore, "multi": self.multi, "classes": self.classes}
        names |= {f"classes.{key}": given for key, given in (self.classes or {}).items()}
        for key, given in names.items():
            if given is not None and len(set(given)) < max(1, len(given)):
                what = "column" if key in ("categories", "ignore") else "class" if "." in key else "category"
                raise ValueError(f"{key} names {f'a {what} twice' if given else f'no {what}: leave it out'}")
        if self.categories is not None and self.ignore is not None:
            raise ValueError("categories and ignore cannot be used together: keep one of them")
        if self.rare == "ignore" and self.min_count is None:
            raise ValueError("rare: ignore needs min_count, such as min_count: 5")
        if self.split_values is not None and self.split is None:
            raise ValueError("split_values needs a column of splits, but split is null: keep one of them")
        if isinstance(self.labels, dict) and "train" not in self.labels:
            raise ValueError("labels has no file for train, as in {train: train.csv, test: test.csv}")
        return self

    @property
    def is_tabular(self) -> bool:
        """True if rows are read as those of a table: from a file of labels, or from a custom layout."""
        return self.layout == "table" or self.layout not in LAYOUTS

    @property
    def several(self) -> dict[str, tuple[str, ...]]:
        """The categories with several answers, each with its columns of 0 and 1, if it has any."""
        return self.multi if isinstance(self.multi, dict) else dict.fromkeys(self.multi or (), ())

    @property
    def spellings(self) -> frozenset[str]:
        """The values that mean a missing answer, in lower case."""
        usual = MISSING_WORDS if self.is_tabular and self.missing != () else ()
        return frozenset(word.strip().lower() for word in (*usual, *(self.missing or ()), "") if word != NONE_SET)

    @property
    def none_set_missing(self) -> bool:
        """True if the answer of an image without any class is missing."""
        return NONE_SET in (self.missing or ())
