"""The next step after an error, for a person at a command line.

Apart from `rendering`, because `--help` imports it and must not wait for the library.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .._core.errors import (
    AuthenticationError,
    ConfigError,
    DeadlineExceeded,
    DownloadError,
    FluxError,
    InvalidRequest,
    JobFailed,
    JobLost,
    RateLimited,
    ServerError,
    TransportError,
    cut_runs,
)
from .._core.text import display, duration

_AGAIN = "run the same command again"


def with_advice(error: FluxError) -> str:
    """Return the error's message, ending with what to do next."""
    text = cut_runs(_with_options(error)) if isinstance(error, ConfigError) else str(error)
    kept = getattr(error, "quarantined", None)
    where = f"its bytes are in {kept.path}" if kept is not None and kept.path else ""
    return "; ".join(filter(None, (text, where, next_step(error))))


#: arguments that error messages recommend, as Python writes them
_RECOMMENDED = re.compile(
    r"\b(allow_unknown_models|allow_private_network|simulate|max_cost)=(\d\S*\d|True)(?! in Python)"
)


def _with_options(error: ConfigError) -> str:
    """Return the message with the options of the command line instead of Python's arguments."""
    text = str(error)
    if error.argument:
        value = error.value
        written = f"{value:g}" if isinstance(value, float) else display(str(value), 40)
        shown = "" if value is None else f" {written}"
        text = f"{_option(error.argument)}{shown}: {error.reason}"
    return in_options(text)


def in_options(text: str) -> str:
    """Return a message with the options that it recommends, instead of Python's arguments."""
    text = text.replace("Provider(allow_private_network=True)", "allow_private_network=True")
    text = text.replace("Credentials(access_token=…)", "--access-token-file FILE")
    return _RECOMMENDED.sub(
        lambda found: _option(found[1]) + ("" if found[2] == "True" else f" {found[2]}"), text
    )


#: options with another name than the argument in Python
_RENAMED = {"address": "ray", "lag": "polling-lag", "listen": "webhook-listen"}


def _option(argument: str) -> str:
    return "--" + _RENAMED.get(argument, argument.replace("_", "-"))


def next_step(error: FluxError) -> str:
    """Return what to do about an error; "" where its message says it."""
    match error:
        case AuthenticationError(of_token=True):
            return f"check COMETAPI_ACCESS_TOKEN or --access-token-file, then {_AGAIN}"
        case AuthenticationError():
            return f"check COMETAPI_KEY, BFL_API_KEY or --key-file, then {_AGAIN}"
        case InvalidRequest():
            return "change the request: fluxasync models lists what each model takes"
        case RateLimited() | ServerError() if error.retry_after:
            asked = duration(error.retry_after)
            return f"the server asks to wait {asked}: {_AGAIN} after that"
        case RateLimited() | ServerError():
            return f"{_AGAIN} later"
        case TransportError(sent=True):
            return "check the provider's dashboard for this job before resubmitting"
        case TransportError(permanent=True):
            return f"fix this, then {_AGAIN}"
        case TransportError():
            return f"check the network and --base-url, then {_AGAIN}"
        case DeadlineExceeded():
            return f"the job is {error.job.job_id}"
        case DownloadError():
            return f"the job is {error.job.job_id}: collecting it again is free"
        case JobFailed() | JobLost():
            return "another try is charged again"
    return ""


def about_damage(count: int) -> str:
    """Return what to do about images whose files are missing or truncated."""
    return (
        f"{count} damaged: repeat the run command with --retry damaged, which fetches them again, "
        "or pays again where the job is gone"
    )


#: about images in doubt whose candidates are listed, and about those without a task in the list
ABOUT_CANDIDATES = "look at these jobs, then decide with --job-id KEY=ID"
ABOUT_UNLISTED = (
    "the account shows no task and no charge; --resubmit-unlisted --max-cost X submits them again, "
    "--drop gives them up"
)


def about_unlisted(count: int, *, of_them: bool = True) -> str:
    """Return what to do about images in doubt of which the account shows no task and no charge;
    `of_them`: a line before it says how many are in doubt."""
    which = "of them" if of_them else "in doubt and"
    return (
        f"{count} {which} not listed: the account shows no task and no charge; the same "
        "command with --resubmit-unlisted --max-cost X submits them again"
    )


def about_candidates(count: int, where: Path | str) -> str:
    """Return what to do about images in doubt that may be jobs which the account lists."""
    return (
        f"{count} of them with candidates: fluxasync resolve {where} shows these jobs; decide with "
        "--job-id KEY=ID"
    )


def about_quarantine(count: int, where: Path | str) -> str:
    """Return what to do about paid images whose bytes failed a check."""
    which = "1 paid image is" if count == 1 else f"{count} paid images are"
    return (
        f"{which} in quarantine: look at the files in {where}/.fluxasync/quarantine, then "
        f"fluxasync resolve {where} --accept KEY or --discard KEY; --retry quarantined pays again"
    )


def about_failures(
    failed: Counter[str], where: Path | str, *, quarantined: int = 0
) -> Iterator[str]:
    """Yield what to do about failures, one line for each remedy; `quarantined` of them have bytes
    in quarantine, and no general retry makes them again."""
    lists = f"{where}/failures.jsonl"
    moderated, wrong, refused = failed["moderated"], failed["invalid"], failed["rejected"]
    late, unfetched = failed["timeout"], failed["download"] + failed["expired"]
    if moderated:
        yield f"{moderated} moderated: change those prompts, listed in {lists}"
    if wrong:
        yield f"{wrong} wrong: correct those lines, listed in {lists}"
    if refused:
        yield f"{refused} refused by the server: its reasons are in {lists}"
    if late:
        yield f"{late} past the deadline and paid: {_AGAIN} to collect them, which is free"
    if unfetched:
        yield f"{unfetched} paid and not fetched: --retry download,expired collects them, for free"
    if dropped := failed["dropped"]:
        yield f"{dropped} dropped: to make them, paid again: the same command with --retry dropped"
    settled = moderated + wrong + refused + late + dropped + max(unfetched, quarantined)
    if failed.total() > settled:
        yield "to try failures again: the same command with --retry failed"
