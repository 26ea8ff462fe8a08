"""A bill as text, as JSON and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from io import StringIO
from pathlib import Path
from shlex import quote
from textwrap import wrap

from .. import Bill, BillLine, Cause, PoolBill
from .._batch.bill.bill_values import ROWS
from .._core.amounts import amount_plain, dollars
from .._core.text import columns, counted, display

_HEADS = ("model", "images", "jobs", "price", "journal", "provider", "refunded", "difference")
_NONE = "–"
#: US dollars below which a difference is not visible in four decimals
_VISIBLE = Decimal("0.00005")
#: what a bill lacks, by the source of the provider's figures
_MISSING = {
    None: "no figures of the provider",
    "balance": "no figures by model",
    "usage log": "not compared",
}
#: columns for a model's name
_NAME = 40


def csv_lines(bills: Mapping[str, Bill]) -> Iterator[str]:
    """Yield a head and the rows of the tables; amounts in US dollars, empty if unknown. The bills
    are by account, which has a column; "" = the only one, without that column."""
    page = StringIO()
    writer = csv.writer(page, lineterminator="\n")
    head = ["account"] if "" not in bills else []
    head += ["model", "images", "jobs", "lowest_price", "highest_price"]
    writer.writerow([*head, "journal", "charged", "refunded", "difference"])
    for name, bill in bills.items():
        for line in bill.rows:
            prices = (line.prices[0], line.prices[-1]) if line.prices else (None, None)
            amounts = (*prices, line.journal, line.charged, line.refunded, line.difference)
            own = [name] if name else []
            texts = ("" if each is None else amount_plain(each) for each in amounts)
            writer.writerow([*own, line.model, line.images, line.jobs, *texts])
    yield from page.getvalue().splitlines()


def total_lines(bill: PoolBill) -> Iterator[str]:
    """Yield the lines about all accounts together."""
    rest, charged, difference = bill.rest, bill.charged, bill.difference
    if rest.journal:
        others = sum((line.journal for line in rest.lines), Decimal(0))
        parts = (
            f"other accounts {dollars(others)}" if others else "",
            *(f"{cause.kind} {dollars(cause.amount)}" for cause in rest.causes if cause.amount),
        )
        yield f"of no account above, by the journal: {', '.join(filter(None, parts))}"
    known = "" if charged is None else f", charged {dollars(charged)}"
    less = "" if difference is None else f", difference {_signed(difference)}"
    yield f"all accounts: journal {dollars(bill.journal)}{known}{less}"


def table(bill: Bill, width: int) -> Iterator[str]:
    """Yield a row for each model, for what is in doubt, given up or of earlier attempts, and for
    the total; on a narrow terminal two lines for each."""
    rows = [_cells(line) for line in bill.rows]
    total: tuple[str, ...] = (
        "total", f"{bill.images:,}", f"{bill.jobs:,}", "", dollars(bill.journal),
        _amount(bill.charged), _amount(bill.refunded), _signed(bill.difference),
    )  # fmt: skip
    rows += [total]
    sizes = [max(map(columns, cells)) for cells in zip(_HEADS, *rows, strict=True)]
    if sum(sizes) + 2 * (len(sizes) - 1) <= width:
        for cells in (_HEADS, *rows):
            yield _aligned(cells, sizes)
        return
    for name, *rest in rows:
        yield name
        parts = [
            f"{head} {cell}"
            for head, cell in zip(_HEADS[1:], rest, strict=True)
            if cell not in ("", _NONE)
        ]
        yield from wrap(", ".join(parts), max(width, 40), initial_indent="  ",
                        subsequent_indent="  ")  # fmt: skip


def _cells(line: BillLine) -> tuple[str, ...]:
    prices = [dollars(price) for price in (line.prices[:1] + line.prices[1:][-1:])]
    is_model = line.model not in ROWS
    return (
        display(line.model, _NAME),
        f"{line.images:,}" if is_model else "",
        f"{line.jobs:,}" if is_model else "",
        "–".join(prices) or ("unknown" if is_model else ""),
        dollars(line.journal),
        _amount(line.charged),
        _amount(line.refunded),
        _signed(line.difference),
    )


def _aligned(cells: Sequence[str], sizes: Sequence[int]) -> str:
    first, *rest = (
        f"{cell}{' ' * (size - columns(cell))}" if place == 0 else f"{cell:>{size}}"
        for place, (cell, size) in enumerate(zip(cells, sizes, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def _amount(amount: Decimal | None) -> str:
    return _NONE if amount is None else dollars(amount)


def _signed(amount: Decimal | None) -> str:
    if amount is None:
        return _NONE
    sign = "" if abs(amount) < _VISIBLE else "-" if amount < 0 else "+"
    return f"{sign}{dollars(abs(amount))}"


# --- causes -------------------------------------------------------------------------------------


def remarks(bill: Bill, folder: Path | str, options: str = "") -> Iterator[str]:
    """Yield a line for each cause of a difference, and for what is missing. `options` is what the
    recommended commands need to ask the same account."""
    where = quote(str(folder))
    if bill.source == "balance":
        yield _about_balance(bill)
    for cause in bill.causes:
        if cause.kind != "other users":
            yield _remark(cause, bill, where, options)
    if others := [cause for cause in bill.causes if cause.kind == "other users"]:
        yield _others(others)
    if bill.missing is not None:
        yield f"{_MISSING[bill.source]}: {bill.missing}"
    if bill.recorded:
        yield f"recorded: {counted(bill.recorded, 'refund')}, {dollars(bill.recorded_amount)}"
    if bill.simulated:
        yield "simulated: nothing was paid"


def _about_balance(bill: Bill) -> str:
    covered = "" if bill.covered in (None, bill.journal) else (
        f", in which the journal says {dollars(bill.covered or Decimal(0))}"
    )  # fmt: skip
    return (
        f"provider: by the balance before and after the runs{covered}; it counts other users of "
        "the account too, and is after refunds"
    )


def _remark(cause: Cause, bill: Bill, where: str, options: str) -> str:
    amount, model = dollars(cause.amount), display(cause.model or "", _NAME)
    jobs = counted(cause.count, "job")
    match cause.kind:
        case "price list outdated":
            return _price(cause, model)
        case "price unknown":
            images = counted(cause.count, "image")
            each = "" if cause.charged_price is None else f"; --price {model}={cause.charged_price}"
            return f"price unknown: {images} of {model}, charged {amount}{each}"
        case "refunds not recorded":
            return (
                f"refunded: {jobs} of {model} failed and {amount} came back, which the journal "
                f"counts as perhaps charged; to record it: fluxasync bill {where} --settle{options}"
            )
        case "adjusted":
            return f"adjusted by the provider: {jobs} of {model}, {_signed(cause.explains)}"
        case "not in the log":
            return (
                f"not in the log: {jobs} of {model}, {amount}: not charged, or not in the log yet"
            )
        case "perhaps charged":
            return f"perhaps charged by the journal, and not by the balance: {amount}"
        case "in doubt" | "given up" | "earlier attempts":
            return _own(cause, bill, where, options)
        case "running":
            images = counted(cause.count, "image")
            return (
                f"still running: {images}, {amount}; run the same command again to collect "
                f"{'it' if cause.count == 1 else 'them'}"
            )
        case "refunds without a job":
            refunds = counted(cause.count, "refund")
            return f"without a job of this folder: {refunds}, {amount}, left out"
        case "log incomplete":
            return (
                "log incomplete: some of its pages were not read; try again, or a shorter time "
                "with --since"
            )
    model = f" of {model}" if model else ""
    return f"unexplained: {_signed(cause.explains)}{model}{_near(bill)}"


def _price(cause: Cause, model: str) -> str:
    if cause.price is None or cause.charged_price is None:
        return (
            f"price list outdated: {model} costs {cause.factor} times its prices "
            f"({counted(cause.count, 'image')}, {_signed(cause.explains)})"
        )
    return (
        f"price list outdated: an image of {model} costs {dollars(cause.charged_price)}, not "
        f"{dollars(cause.price)}; give --price {model}={cause.charged_price.normalize():f}"
    )


def _own(cause: Cause, bill: Bill, where: str, options: str) -> str:
    """Return the line of a cause that has a row in the table."""
    perhaps = "perhaps " if bill.source == "balance" else ""  # failed jobs may be it as well
    part = f" ({perhaps}{_signed(cause.explains)} of the difference)" if cause.explains else ""
    charges = f"{counted(cause.entries, 'charge')} of the log ({dollars(cause.charged)}) may be "
    charges += "its own" if cause.count == 1 else "theirs"
    entries = f"; {charges}" if cause.entries else ""
    about = f"{dollars(cause.amount)} perhaps charged{part}{entries}"
    if cause.kind == "earlier attempts":
        return f"earlier attempts of images submitted again: {cause.count:,}, {about}"
    line = f"{cause.kind}: {counted(cause.count, 'submission')}, {about}"
    if cause.kind == "given up":  # nothing is asked about it any more
        return line
    # BFL has no list of tasks
    how = "" if bill.providers == ("bfl",) else f" --reconcile{options}"
    return f"{line}; to settle: fluxasync resolve {where}{how}"


def _others(causes: Sequence[Cause]) -> str:
    count, amount = sum(c.count for c in causes), sum((c.amount for c in causes), Decimal(0))
    models = [f"{c.count:,} of {display(c.model, _NAME)}" for c in causes if c.model is not None]
    named = f" ({', '.join(models[:3])})" if models else ""
    return f"other users of the key: {counted(count, 'charge')}{named}, {dollars(amount)}, left out"


def _near(bill: Bill) -> str:
    if bill.source != "balance":
        return ""
    return ": perhaps another price, or other users; a usage log would tell them apart"
