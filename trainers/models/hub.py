"""Downloads from the model hub, before a trial exists, with a timeout short enough for a person to wait."""

from functools import cache

REFUSALS = {401: "it requires a token: see hf auth login", 403: "access is forbidden", 404: "it has no such file"}
TROUBLES = {
    "Offline": "HF_HUB_OFFLINE is set",
    "Timeout": "it does not answer",
    "Proxy": "the proxy does not connect",
    "Connect": "no connection",
}
"""Explanations, keyed by a part of the error's class name."""


def is_cached(repository: str, filename: str) -> bool:
    """True if a file of the hub is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, filename), str)


def missing(repository: str, filename: str) -> str:
    """Return why the hub's file is unavailable; empty if it is in the local cache, downloading it if need be.

    A hub that accepts the connection but never answers is given up after HF_HUB_ETAG_TIMEOUT (10 s): it is queried
    once here, because the library's own download would retry for seven minutes.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    if is_cached(repository, filename):
        return ""
    if why := _silence():
        return why
    try:
        get_hf_file_metadata(hf_hub_url(repository, filename))
        hf_hub_download(repository, filename)
    except Exception as error:  # noqa: BLE001  any HTTP library may be inside; the reason is reported
        return _reason(error)
    return ""


@cache
def _silence() -> str:
    """Return why the hub, or a proxy before it, does not answer; empty if it does. Queried once for all files."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # noqa: BLE001  any HTTP library may be inside; the reason is reported
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    """Return what went wrong with the hub, in words, whichever HTTP library is inside."""
    kind, status = type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return REFUSALS.get(status, f"it answers with HTTP status {status}")
    for part, words in TROUBLES.items():
        if part in kind:
            return words
    said = " ".join(str(error).split()).split(". ")[0]  # the other sentences are about the calling code
    return said[:200] or kind
