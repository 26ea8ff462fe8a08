"""The checks of `doctor` that concern the list and the options: read, counted, priced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Literal

from attrs import evolve, frozen

from .._batch.batch import Batch
from .._core.amounts import dollars
from .._core.models import ImageRequest
from .._core.text import counted, display
from .._engine.pool import batch_engine_of
from .._requests.sources import open_source
from .account_pool import planned_session
from .exit_codes import BUDGET, DONE, USAGE
from .findings import CheckResult, bounded
from .options import RunOptions
from .planned_run import batch_of, prompts_of

#: a list of a million rows is counted in about a minute
_LONGER = 5
#: rows whose images are measured
_MEASURED = 500
#: bytes of a pixel, by format: PNGs of 4 megapixels have 5 to 9 MB
_BYTES = {"png": 2.2, "webp": 0.4}
_OF_OTHERS = 0.6
_SIDE = 1024  # of an image without a size


@frozen(kw_only=True)
class ListFacts:
    """What the other checks need of the list and the options."""

    images: int | None = None  #: still to make; None = there is no list, or it is a stream
    cost: Decimal | None = None  #: US dollars, within --max-cost; None = not known
    image_bytes: int = 0  #: of one image, on average
    slots: int = 24
    places: int = 40


async def list_finding(
    sources: Sequence[str], options: RunOptions, warn: Callable[[str], None], *, patience: float
) -> tuple[CheckResult, ListFacts]:
    """Count and price the list as a dry run does, and refuse the options that it would refuse."""

    async def facts() -> tuple[CheckResult, ListFacts]:
        flux = planned_session(options, warn)
        engine = batch_engine_of(flux)
        found = ListFacts(slots=engine.slots, places=engine.places)
        if not sources:
            text, step = "no list was given, so none was counted", "name it, as for the run"
            return CheckResult(check="list", status="skipped", text=text, next=step), found
        return await _counted(batch_of(Batch, flux, sources, options), sources, options, found)

    step = "count it alone, with run --dry-run"
    found = await bounded("list", facts(), code=USAGE, step=step, seconds=_LONGER * patience)
    return (found, ListFacts()) if isinstance(found, CheckResult) else found


async def _counted(
    batch: Batch,
    sources: Sequence[str],
    options: RunOptions,
    found: ListFacts,
) -> tuple[CheckResult, ListFacts]:
    try:
        plan = await batch.check()
    finally:
        await batch.aclose()
    if plan.images is None:
        text = "a stream is counted while it is read"
        return CheckResult(check="list", text=text), found
    whole, paid = batch.estimate, batch.affordable
    assert whole is not None  # noqa: S101 — a list that was counted has an estimate
    assert paid is not None  # noqa: S101 — as above
    done = plan.known.get("done", 0)
    cost = None if whole.unpriced else paid.cost
    found = evolve(
        found, images=paid.images, cost=cost, image_bytes=await _mean_bytes(sources, options)
    )
    parts = [
        *([f"{counted(plan.images, 'image')}, {done:,} already there"] if done else []),
        *([f"{counted(plan.bad, 'bad row')} skipped"] if plan.bad else []),
        str(whole),
    ]
    if paid.images < whole.images:
        parts.append(f"the budget pays for {paid.images:,}: {dollars(paid.cost)}")
    values = {
        "images": plan.images,
        "to_do": whole.images,
        "within_budget": paid.images,
        "cost": None if cost is None else float(cost),
        "seconds": round(whole.seconds),
    }
    status: Literal["ok", "warning", "failed"] = "ok"
    step, code = "", DONE
    if whole.unpriced:
        status, step = "warning", "give the price: --price MODEL=0.04"
    elif paid.images < whole.images:
        status, step = "warning", "to make all of them: a higher --max-cost"
        if not paid.images:
            status, code = "failed", BUDGET
    text = display("; ".join(parts))
    result = CheckResult(
        check="list", status=status, text=text, next=step, code=code, values=values
    )  # fmt: skip
    return result, found


async def _mean_bytes(sources: Sequence[str], options: RunOptions) -> int:
    """Return about how large an image of the list is, by the sizes and formats of the first
    rows."""
    prompts = prompts_of(sources, options)
    source = open_source(evolve(prompts, limit=min(prompts.limit or _MEASURED, _MEASURED)))
    try:
        async with aclosing(source.requests()) as rows:
            sizes = [_bytes(row) async for row in rows if isinstance(row, ImageRequest)]
    finally:
        await source.aclose()
    return int(sum(sizes) / len(sizes)) if sizes else 0


def _bytes(request: ImageRequest) -> float:
    given = request.given()
    width, height = (
        side if isinstance(side := given.get(name), int) else _SIDE for name in ("width", "height")
    )
    return width * height * _BYTES.get(str(request.output_format), _OF_OTHERS)
