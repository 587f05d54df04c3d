"""Tables with one row per answer of an image, and the line of pandas that makes them one row per image."""

from collections.abc import Collection

from trainers.data.tabular.csv_file import Sheet
from trainers.support.errors import Fault


def refusal(sheet: Sheet, path: str, ignored: Collection[str], fixed: Collection[str]) -> Fault | None:
    """Return a fault for a table in which most images have several rows that differ; None for any other.

    `fixed` are columns with one value per image: if they differ, the image is listed twice.
    """
    paths = sheet.column(path)
    images = set(paths)
    if not images or 2 * len(images) > len(paths):
        return None
    names = [name for name in dict.fromkeys(sheet.header) if name and name != path and name not in ignored]
    pairs = {name: set(zip(paths, sheet.column(name), strict=True)) for name in names}
    names = [name for name in names if len(set(sheet.column(name))) < len(paths)]  # the others number the rows
    varying = [name for name in names if len(pairs[name]) > len(images)]
    if set(fixed) & set(varying):
        return None
    index = [path, *(name for name in names if name not in varying)]
    rows = f"{len(images):,} images in {len(paths):,} rows"
    if len(varying) == 1:
        (value,) = varying
        help = f"t = {sheet.pandas}; t.groupby({index}, dropna=False)[{value!r}].agg('|'.join).to_csv('wide.csv')"
        return Fault(
            sheet.head, f"{rows}: one row for each answer in {value!r}", f"{help}; data: {{multi: [{value}]}}"
        )
    if len(varying) != 2:
        return None
    attribute, value = sorted(varying, key=lambda name: len(set(sheet.column(name))))
    how = f"index={index}, columns={attribute!r}, values={value!r}"
    call = f"pivot({how})" if len(pairs[attribute]) == len(paths) else f"pivot_table({how}, aggfunc='|'.join)"
    what = f"{rows}: one row for each image and {attribute!r}, with its {value!r}"
    return Fault(sheet.head, what, f"make it wide: {sheet.pandas}.{call}.to_csv('wide.csv')")
