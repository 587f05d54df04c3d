"""What the model hub gives, asked for before a trial exists, and not for longer than a person waits."""

from functools import cache

REFUSALS = {401: "it asks for a token: see hf auth login", 403: "it forbids it", 404: "it has no such file"}
TROUBLES = {
    "Offline": "HF_HUB_OFFLINE is set",
    "Timeout": "it does not answer",
    "Proxy": "the proxy gives no connection",
    "Connect": "no connection",
}
"""By a part of the names of the errors that tell them."""


def is_cached(repository: str, filename: str) -> bool:
    """Whether a file of the hub is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, filename), str)


def missing(repository: str, filename: str) -> str:
    """Why the hub's file cannot be had; nothing where it is in the local cache, fetched if need be.

    A hub that takes the call and never answers is left after HF_HUB_ETAG_TIMEOUT (10 s): it is asked once here,
    since the library's own download would ask again and again for seven minutes.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    if is_cached(repository, filename):
        return ""
    if why := _silence():
        return why
    try:
        get_hf_file_metadata(hf_hub_url(repository, filename))
        hf_hub_download(repository, filename)
    except Exception as error:  # noqa: BLE001  of whichever HTTP library is inside; it is told
        return _reason(error)
    return ""


@cache
def _silence() -> str:
    """Why the hub, or the proxy before it, does not answer at all; or nothing. Asked once for all files."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # noqa: BLE001  of whichever HTTP library is inside; it is told
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    """What went wrong with the hub, in words, whichever HTTP library is inside."""
    kind, status = type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return REFUSALS.get(status, f"it answers with HTTP status {status}")
    for part, words in TROUBLES.items():
        if part in kind:
            return words
    said = " ".join(str(error).split()).split(". ")[0]  # the other sentences are about our own code
    return said[:200] or kind
