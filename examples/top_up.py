"""Top up a folder: make the images of a list that it lacks. For cron or a systemd timer.

    0 3 * * *  cd /srv/images && python top_up.py prompts.txt stock --max-cost 20

The list may be extended, shortened or sorted between two nights. `--max-cost` limits the total cost
of the folder, including earlier nights. Exit codes: 0, all images are saved; 3, some images failed
or are in doubt; 75 (EX_TEMPFAIL, "try again later"), provider or network not available; 1, a person
is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from fluxasync import FluxError, Prompts, RateLimited, ServerError, Summary, TransportError, run
from fluxasync.events import LimitChanged

LATER = (RateLimited, ServerError, TransportError)


def log_limit(event: object) -> None:
    """Log changes of the account's limit."""
    if isinstance(event, LimitChanged):
        print(f"{event.group}: at most {event.limit} active jobs")


async def top_up(options: argparse.Namespace) -> Summary:
    result = await run(
        Prompts(options.prompts, model=options.model),
        out=options.folder,
        budget=options.max_cost,
        limits="auto",
        base_url=options.base_url,
        on_event=log_limit,
    )
    return result.summary


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the images of a list that a folder lacks.")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="flux-dev")
    parser.add_argument("--max-cost", help="limit in US dollars, over all nights")
    parser.add_argument("--base-url", help="another address, for example a simulator's")
    options = parser.parse_args()
    try:
        summary = asyncio.run(top_up(options))
    except LATER as error:
        print(f"later: {error}", file=sys.stderr)
        return 75
    except FluxError as error:
        print(f"a person is needed: {error}", file=sys.stderr)
        return 1
    print(summary)
    return 3 if summary.failed or summary.in_doubt else 0


if __name__ == "__main__":
    sys.exit(main())
