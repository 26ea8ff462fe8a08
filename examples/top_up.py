"""Top up a folder: make what the list has and the folder has not. For cron or a systemd timer.

    0 3 * * *  cd /srv/images && python top_up.py prompts.txt stock --max-cost 20

The list may grow, shrink or be sorted anew between two nights. `--max-cost` is the most that the
folder may ever cost: what earlier nights spent counts. Ends with 0 when all is there, with 3 when
some images failed or are in doubt, with 75 (EX_TEMPFAIL, "try again later") when the provider or
the network is out, and with 1 when a person is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from fluxasync import FluxError, Prompts, RateLimited, ServerError, Summary, TransportError, run
from fluxasync.events import LimitChanged

LATER = (RateLimited, ServerError, TransportError)


def said(event: object) -> None:
    """Note what the log of a night should tell."""
    if isinstance(event, LimitChanged):
        print(f"{event.group}: now {event.limit} jobs at once")


async def top_up(options: argparse.Namespace) -> Summary:
    return await run(
        Prompts(options.prompts, model=options.model),
        out=options.folder,
        budget=options.max_cost,
        limits="auto",
        base_url=options.base_url,
        on_event=said,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Make what the list has and the folder has not.")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="flux-dev")
    parser.add_argument("--max-cost", help="US dollars, over all nights")
    parser.add_argument("--base-url", help="another address, such as a simulator's")
    options = parser.parse_args()
    try:
        summary = asyncio.run(top_up(options))
    except LATER as error:
        print(f"later: {error}", file=sys.stderr)
        return 75
    except FluxError as error:
        print(f"look at this: {error}", file=sys.stderr)
        return 1
    print(summary)
    return 3 if summary.failed or summary.in_doubt else 0


if __name__ == "__main__":
    sys.exit(main())
