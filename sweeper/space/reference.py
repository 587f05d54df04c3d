"""docs/keys.md: what each metric is, and every key under `train` and `data`, generated from the models."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from sweeper.space.hints import parts
from sweeper.space.tree import flow
from trainers.config import TrainConfig
from trainers.data_config import DataConfig
from trainers.metrics.definitions import BUILT_IN
from trainers.support.files import write_text

PATH = Path(__file__).parents[2] / "docs" / "keys.md"


def text() -> str:
    """The page, in Markdown."""
    lines = [
        "# Every key",
        "",
        "Written by `make schema`. Loss, optimizer, schedule, augment, drop_path, posthoc_logit_adjustment and tta,",
        "where a file leaves them out, come from the backbone's family (`space/defaults.py`), not from here.",
        "A part with names is one of them: `loss: focal`, or `loss: {name: focal, gamma: 2}`.",
        *_metrics(),
        *_section("data", DataConfig),
        *_section("train", TrainConfig),
    ]
    return "\n".join(lines) + "\n"


def write(path: Path = PATH) -> None:
    """Put the page at `path`."""
    write_text(path, text())


def _metrics() -> list[str]:
    """A table of the metrics."""
    text = "The metric on val by which epochs and trials are judged. A mean is over the classes of all categories."
    rows = [f"| `{name}` | {one.description} |" for name, one in BUILT_IN.items()]
    return ["", "## metric", "", text, "", "| metric | what it is |", "|---|---|", *rows]


def _section(name: str, model: type[BaseModel]) -> Iterator[str]:
    """A table of the model's keys, then a section for each part among them."""
    yield from ("", f"## {name}", "")
    if model.__doc__ and name not in ("data", "train"):
        yield from (model.__doc__.splitlines()[0], "")
    yield from ("| key | default | meaning |", "|---|---|---|")
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        found = list(parts(field.annotation))
        inner += [(f"{name}.{key}{_tag(one)}", one) for one in found]
        if key != "name":
            cells = f"`{key}`", _default(model, key), field.description or ""
            yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
    for title, one in inner:
        yield from _section(title, one)


def _tag(model: type[BaseModel]) -> str:
    return f": {model.model_fields['name'].default}" if "name" in model.model_fields else ""


def _default(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    if field.is_required():
        return "(needed)"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f"`{value.name}`" if hasattr(value, "name") else "see below"
    return "" if value is None else f"`{flow(list(value) if isinstance(value, tuple) else value)}`"
