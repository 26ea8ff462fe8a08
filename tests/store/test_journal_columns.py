"""The limits and types of a row and its JSON, and the columns that each state requires."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from test_journal import journal

from fluxasync import APIError, Failed, JournalCounts, JournalError
from fluxasync._store.journal.checked_row import Row, _depth, decoded, json_fault, row_of
from fluxasync._store.journal.schema import State
from fluxasync._store.journal.serialization import known_of
from fluxasync._store.output_root import OutputRoot

DONE: dict[str, Any] = {
    "id": 1, "key": b"k" * 32, "state": 2, "idx": 0, "occurrence": 0, "model": "flux-dev",
    "request": '{"prompt":"fox"}', "begun_at": 0.0, "price": "0.025", "job_id": "job-1",
    "polling_url": None, "submitted_at": 1.0, "cost": "0", "stem": "a/b..c", "seq": 1,
    "finished_at": 253_370_764_800.0, "path": "../elsewhere/a.jpg", "sha256": b"s" * 32, "size": 0,
    "format": "jpeg", "width": 0, "height": 0, "result": "{}", "cause": "c" * 64,
    "message": "m" * 6 * 2_048, "paid": "yes", "evidence": "e" * 6 * 65_536, "provider": "bfl",
    "account": "a" * 300,
}  # fmt: skip


def row(**fields: Any) -> Row:
    return row_of(tuple((DONE | fields)[name] for name in Row._fields))


def test_a_row_at_its_limits_is_accepted():
    """A value at its limit is accepted, so every row that was written can be read."""
    assert row() == Row(**DONE)
    for state in State:
        assert row(state=int(state)).state == state


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", 0), ("key", b"k" * 31), ("key", b"k" * 33), ("key", "text"), ("state", -1),
        ("state", 6), ("state", 2.0), ("state", None), ("idx", "1"), ("occurrence", -1),
        ("model", None), ("model", b"m"), ("request", None), ("begun_at", -0.1), ("begun_at", 5),
        ("begun_at", 253_370_764_801.0), ("price", "-0.1"), ("price", "1e5"), ("price", ""),
        ("price", "1234567890"), ("price", "0.1234567890123"), ("price", 0.025), ("price", "NaN"),
        ("price", "\u0663"), ("job_id", 5), ("polling_url", b"u"), ("submitted_at", -1.0),
        ("submitted_at", float("inf")), ("cost", "1_0"), ("cost", " 1"), ("stem", "/etc/x"),
        ("stem", "../x"), ("stem", "a/../x"), ("stem", "a\0"), ("seq", 0), ("seq", 2**62),
        ("finished_at", 1e300), ("finished_at", -1.0), ("path", "a\0"), ("sha256", b"s" * 33),
        ("sha256", "s" * 32), ("size", -1), ("width", -1), ("height", -1), ("size", 1.5),
        ("format", 1), ("result", 1), ("cause", "c" * 65), ("message", "m" * (6 * 2_048 + 1)),
        ("evidence", "e" * (6 * 65_536 + 1)), ("paid", 1), ("provider", None),
        ("account", 1), ("account", ""), ("account", "a" * 301), ("account", "a\x1b[2J"),
    ],
)  # fmt: skip
def test_a_value_beyond_its_limit_is_named(column: str, value: Any):
    """T17: the error names row and column, and shows little of the value."""
    with pytest.raises(JournalError, match=f"row .*, column {column} holds ") as refusal:
        row(**{column: value})
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("state", "columns"),
    [
        (State.SUBMITTED, ["job_id", "submitted_at"]),
        (State.DONE, ["job_id", "seq", "finished_at", "sha256", "size"]),
        (State.FAILED, ["seq", "finished_at"]),
        (State.IN_DOUBT, ["seq", "finished_at"]),
    ],
)
def test_a_state_requires_its_columns(state: State, columns: list[str]):
    """A column that readers of the state rely on must be present."""
    optional = [name for name, hint in get_type_hints(Row).items() if hint == hint | None]
    for name in optional:
        if name in columns:
            with pytest.raises(JournalError, match=f"column {name} holds None"):
                row(state=int(state), **{name: None})
        else:
            assert getattr(row(state=int(state), **{name: None}), name) is None


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("1", 0), ("[]", 1), ("[[],[],[[]]]", 3), ('{"a":[{"b":1},{}]}', 3), ('["[[["]', 1),
        ('["\\"[["]', 1), ('["\\\\",[]]', 2), ("[[", 2), ('["[[', 1), ('"[\\', 0), ("]]]", -1),
    ],
)  # fmt: skip
def test_levels_are_counted_outside_of_strings(text: str, levels: int):
    """Brackets in a prompt are text; invalid JSON is counted too."""
    assert _depth(text) == levels


def test_a_document_is_limited_in_length_and_levels():
    """A document at the limits is accepted."""
    assert json_fault("x" * 2**21) is None
    assert json_fault("x" * (2**21 + 1)) == "has more than 2,097,152 characters"
    assert json_fault("[" * 100 + "]" * 100) is None
    assert json_fault("[" * 101 + "]" * 101) == "has more than 100 levels"
    assert json_fault("[]" * 101) is None
    assert json_fault("{" * 101) == "has more than 100 levels"
    assert json_fault('"' + '\\"' * 10**6) is None  # in one pass, whatever ends it


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", "{", "{} ", " {}", '{"a": 1}', '{"n": "1"}', '{"n": 1}{}']
)
def test_a_document_of_another_kind_is_refused(text: str):
    """The column must be one complete object, with known fields of their types."""
    with pytest.raises(JournalError, match="row 1, column request"):
        decoded(row(request=text), "request", {"n": int})
    assert decoded(row(request='{"n":1}'), "request", {"n": int}) == {"n": 1}
    assert decoded(row(result=None), "result", {}) == {}


@pytest.mark.parametrize(("result", "status"), [(None, 0), ("{}", 0), ('{"status":422}', 422)])
def test_a_failure_without_details_has_no_status(result: str | None, status: int):
    """A row of an older version has no details."""
    failed = row(state=3, cause="rejected", message="no", result=result, job_id=None)
    known = known_of(failed, OutputRoot(Path("/images")))
    assert isinstance(known, Failed)
    assert isinstance(known.error, APIError)
    assert known.error.status == status


@pytest.mark.asyncio
async def test_an_empty_journal_counts_nothing(tmp_path: Path):
    """An unreadable summary reads as an empty one."""
    async with journal(tmp_path) as ledger:
        assert ledger.counts == JournalCounts()
        assert ledger.counts.as_json() == {
            "done": 0, "running": 0, "in_doubt": 0, "in_doubt_price": "0", "failed": {},
            "again": 0, "spent": "0", "perhaps": "0",
        }  # fmt: skip
        assert JournalCounts.from_json(ledger.counts.as_json()) == ledger.counts
