"""The next step after an error of an object store."""

from __future__ import annotations

_STEPS = {
    "PermissionDenied": "access is refused: check the credentials, and that they may create, read "
    "and list objects there",
    "NotFound": "there is no such bucket or folder: create it, or correct the URL",
    "NotSupported": "the store lacks a function that is needed: choose another one",
}
_OTHER_STEP = (
    "the store does not answer as it should: check the network and the store, then run the same "
    "command again, which collects paid jobs for free"
)
_NO_HTTP = (
    "plain http is refused: give the option allow_http=true (--storage-option allow_http=true; in "
    "the environment AWS_ALLOW_HTTP or AZURE_ALLOW_HTTP), or an https endpoint"
)
#: where clouds give credentials to their own machines; asked last, when there are no others
_METADATA_SERVER = "169.254.169.254"
_NO_CREDENTIALS = (
    "no credentials were found: set them in the environment (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, for example) or as options"
)


def lacks_credentials(error: Exception) -> bool:
    """Whether the store was not asked, because no credentials were found."""
    return _METADATA_SERVER in str(error)


def next_step(error: Exception, text: str) -> str:
    """Return what to do about an error of obstore, which says `text`."""
    if _METADATA_SERVER in text:
        return _NO_CREDENTIALS
    if "builder error" in text and "http://" in str(error):  # the text may hide the endpoint
        return _NO_HTTP
    kinds = [kind.__name__ for kind in type(error).__mro__]
    for word, step in _STEPS.items():
        if any(kind.startswith(word) for kind in kinds):
            return step
    # the errors of a list have no kind
    is_refused = "403 Forbidden" in text or "401 Unauthorized" in text
    if is_refused or isinstance(error, PermissionError) or "UnauthenticatedError" in kinds:
        return _STEPS["PermissionDenied"]
    if isinstance(error, FileNotFoundError) or "404 Not Found" in text:
        return _STEPS["NotFound"]
    return _STEPS["NotSupported"] if isinstance(error, NotImplementedError) else _OTHER_STEP
