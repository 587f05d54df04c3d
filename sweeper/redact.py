"""Secrets taken out of text before it leaves for a place where others read."""

import os
import re

from trainers.support.errors import UserError
from trainers.support.text import brief

_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:token|secret|passw|key|sig|auth|credential)[^=&#\s]*=)[^&#\s/]+", re.IGNORECASE
)
_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 6  # shorter values would blot out innocent text


def redacted(text: str) -> str:
    """`text` with `***` for logins and keys in addresses and for the value of every secret in the environment."""
    for value in _secrets():
        text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _LOGIN.sub("***@", text))


def refuse_secret(text: str, where: str) -> None:
    """Raise UserError for a value with a login, a key or a secret of the environment in it.

    What a recipe holds is kept with each trial and shown; blotted out there, it could not be run again.
    """
    if redacted(text) != text:
        raise UserError(
            f"a login, a key or a secret of the environment: {brief(redacted(text))}",
            where=where,
            help="take it out, for values are kept and shown; weights and data are paths of this machine",
        )


def _secrets() -> list[str]:
    """Longest first, so that one which contains another goes whole."""
    found = {value for name, value in os.environ.items() if _NAMES.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)
