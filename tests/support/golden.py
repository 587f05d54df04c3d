"""Texts that are kept beside the tests that compare them."""

import os
from pathlib import Path


def same(path: Path, text: str) -> None:
    """Fail where the file holds another text; SWEEP_GOLDEN=1 writes it anew."""
    if os.environ.get("SWEEP_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
