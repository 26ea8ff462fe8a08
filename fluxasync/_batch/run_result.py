"""RunResult: what `fluxasync.run` returns.

Its outcomes are read from the folder's record, a page at a time, so a million take no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from attrs import frozen

from .._core import notebook_html
from .._core.errors import ConfigError, FluxError
from .._core.models import Failed, InDoubt, Outcome, Saved
from .._core.strict_json import read_object
from .._core.text import counted
from .._store.files import open_to_read
from .._store.journal.reader import read_only
from .._store.metadata import FAILURES, failure_row, metadata_row
from .summary import Summary

if TYPE_CHECKING:
    import pandas

_T_co = TypeVar("_T_co", bound=Outcome, covariant=True)

#: failures of a run, and outcomes of a folder, that a notebook shows
_MOST_SHOWN, _MOST_LISTED = 5, 12
#: recorded states of each kind of outcome; a submission that was never answered is in doubt
_STATES: dict[type, tuple[str, ...]] = {
    Saved: ("done",),
    Failed: ("failed",),
    InDoubt: ("intent", "in-doubt"),
}


class Outcomes(Sequence[_T_co], Generic[_T_co]):
    """Outcomes in a folder, in the order in which their images began.

    Each iteration reads them from the record anew, and none stays in memory. Raises JournalError
    while a run is active in the folder.
    """

    def __init__(self, folder: Path, *kinds: type[_T_co]) -> None:
        self._folder, self._kinds = folder, kinds

    def __iter__(self) -> Iterator[_T_co]:
        states = [state for kind in self._kinds for state in _STATES[kind]]
        with read_only(self._folder) as view:
            for entry in view.entries(*states):
                if isinstance(entry.known, self._kinds):
                    yield entry.known
        if Failed in self._kinds:
            yield from self._bad_rows()  # type: ignore[misc]  # of the kind Failed

    def __len__(self) -> int:
        with read_only(self._folder) as view:
            counts = view.counts
        numbers = {
            Saved: counts.done,
            Failed: sum(counts.failed.values()),
            InDoubt: counts.in_doubt,
        }
        bad = sum(1 for _ in self._bad_rows()) if Failed in self._kinds else 0
        return sum(numbers[kind] for kind in self._kinds) + bad

    @overload
    def __getitem__(self, index: int) -> _T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[_T_co]: ...
    def __getitem__(self, index: int | slice) -> _T_co | list[_T_co]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step < 0:
                return list(self)[index]
            return list(islice(self, start, stop, step))
        place = index if index >= 0 else len(self) + index
        for found in islice(self, place, None) if place >= 0 else ():
            return found
        raise IndexError(f"there is no outcome {index}")

    def __repr__(self) -> str:
        try:
            return f"<{counted(len(self), 'outcome')} in {str(self._folder)!r}>"
        except (FluxError, OSError):  # the folder is gone
            return f"<Outcomes in {str(self._folder)!r}>"

    def _repr_html_(self) -> str | None:
        try:
            shown = [*islice(self, _MOST_LISTED)]
        except (FluxError, OSError):  # a run is active there, or the folder is gone
            return None
        rest = f", the first {len(shown)}" if len(shown) < len(self) else ""
        return notebook_html.overview(
            f"{counted(len(self), 'outcome')} in {self._folder}{rest}",
            [each for each in shown if isinstance(each, Saved)],
            [each for each in shown if not isinstance(each, Saved)],
        )

    def _bad_rows(self) -> Iterator[Failed]:
        """Yield the invalid rows of prompt lists, which are in failures.jsonl only."""
        try:
            with open_to_read(self._folder / FAILURES) as file:
                for line in file:
                    row = read_object(line)
                    if row is not None and row.get("key") is None and row.get("where"):
                        error = ConfigError(str(row.get("message")))
                        yield Failed(request=None, error=error, index=-1, where=str(row["where"]))
        except FileNotFoundError:
            return


@frozen(repr=False)
class RunResult:
    """A finished run: its `summary`, and the outcomes in its folder, those of earlier runs there
    included. `str()` is the one line. The counts of the summary other than these outcomes can be
    read here too: `result.cost`, `result.skipped`.
    """

    summary: Summary
    folder: Path  #: of the record and the lists; of a bucket, this machine's copy

    @property
    def outcomes(self) -> Outcomes[Outcome]:
        """All outcomes."""
        return Outcomes(self.folder, Saved, Failed, InDoubt)

    @property
    def saved(self) -> Outcomes[Saved]:
        """The images."""
        return Outcomes(self.folder, Saved)

    @property
    def failed(self) -> Outcomes[Failed]:
        """What has no image, with the error of each; invalid rows come last."""
        return Outcomes(self.folder, Failed)

    @property
    def in_doubt(self) -> Outcomes[InDoubt]:
        """Submissions without an answer, which may be charged."""
        return Outcomes(self.folder, InDoubt)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with a row for each outcome: `status` (saved, failed or in-doubt), the
        columns of metadata.jsonl and failures.jsonl, `path` or URL, and a column for each parameter
        and each column of the prompt list. It is in memory whole. Needs pandas."""
        try:
            import pandas
        except ImportError:
            raise ConfigError("to_pandas needs pandas: pip install pandas") from None
        frame = pandas.DataFrame([*self._rows()])
        return frame if len(frame) else pandas.DataFrame(columns=["status", "prompt", "path"])

    def _rows(self) -> Iterator[dict[str, Any]]:
        with read_only(self.folder) as view:
            root = view.root
        for outcome in self.outcomes:
            if isinstance(outcome, Saved):
                line = {"status": "saved", "path": outcome.place} | metadata_row(outcome, root)
            else:
                status = "failed" if isinstance(outcome, Failed) else "in-doubt"
                line = {"status": status} | failure_row(outcome, self.folder)
            own = {**line.pop("parameters", {})}
            own |= {k if k not in own else f"extras.{k}": v for k, v in line.pop("extras").items()}
            yield line | {(k if k not in line else f"extras.{k}"): v for k, v in own.items()}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.summary, name)

    def __str__(self) -> str:
        return str(self.summary)

    def __repr__(self) -> str:
        return f"<RunResult {self}>"

    def _repr_html_(self) -> str:
        return notebook_html.overview(str(self), self.summary.latest, self._first_problems())

    def _first_problems(self) -> list[Failed | InDoubt]:
        counts = self.summary
        if not (counts.failed or counts.in_doubt or counts.failed_earlier):
            return []
        problems: Outcomes[Failed | InDoubt] = Outcomes(self.folder, Failed, InDoubt)
        return [*islice(problems, _MOST_SHOWN)]
