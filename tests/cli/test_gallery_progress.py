"""What `fluxasync gallery` says while it makes thumbnails."""

from __future__ import annotations

import pytest
from attrs import define, field

from fluxasync._cli.gallery_command import counting


@define
class Recorder:
    """Keeps the lines; `rewrites` as on a terminal."""

    rewrites: bool
    lines: list[str] = field(factory=list)

    def status(self, line: str) -> None:
        self.lines.append(line)

    note = status

    def clear(self) -> None:
        self.lines.clear()


@pytest.mark.parametrize(
    ("rewrites", "patience", "lines"),
    [
        pytest.param(False, 0, [f"{n} of 3 thumbnails" for n in (1, 2, 3)], id="a log"),
        pytest.param(True, 0, [], id="a terminal"),
        pytest.param(False, 3600, [], id="soon done"),
    ],
)
def test_the_last_count_of_thumbnails_is_the_total(rewrites, patience, lines):
    """A log ends with all of them, a terminal with none; what is soon done says nothing."""
    recorder = Recorder(rewrites)
    show = counting(recorder, patience=patience)
    for done in (1, 2, 3):
        show(done, 3)
    assert recorder.lines == lines
