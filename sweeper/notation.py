"""How plain values are written in YAML 1.2: scalars, and values on one line."""

import json
import re
from typing import Any

Scalar = None | bool | int | float | str

_NULL, _BOOL = re.compile(r"|~|null|Null|NULL"), re.compile(r"true|True|TRUE|false|False|FALSE")
_INT, _BASED = re.compile(r"[-+]?[0-9]+"), re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN = re.compile(r"(\.{1,2}/)?[\w/]([\w./+ -]*[\w./+-])?", re.ASCII)


def scalar(text: str) -> Scalar:
    """The value of an unquoted YAML scalar by the core schema of YAML 1.2 (section 10.3.2)."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if _BASED.fullmatch(text) and len(text) < 20:
        return int(text, 0)
    return float(text.replace(".", "", 1) if text[-1] in "fFnN" else text) if _FLOAT.fullmatch(text) else text


def flow(value: Any) -> str:
    """`value` (JSON types) on one line of YAML 1.2 that reads back as the same."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(str(k))}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and scalar(value) == value:
        return value
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'
