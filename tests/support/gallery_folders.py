"""Output folders of runs, for tests of the gallery, without a run.

`Folder` writes the two lists as a run does; `HOSTILE` has texts that try to attack a page.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

#: texts that a careless page would execute, load or break on; each script sets `pwned`
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script>",
    "<!--<script>window.pwned = 1",
    "]]><script>window.pwned = 1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><img src=x onerror=window.pwned=1>',
    "'><svg onload=window.pwned=1>",
    "<svg><script href=data:,window.pwned=1 />",
    "<style>@import 'http://127.0.0.1:9/x.css';</style>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'>",
    "<a href=javascript:window.pwned=1 autofocus onfocus=window.pwned=1>x</a>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.pwned=1>",
    "<base href=http://127.0.0.1:9/>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x>",
    "<form action=http://127.0.0.1:9/><button>x</button></form>",
    "javascript:window.pwned=1",
    "{{constructor.constructor('window.pwned=1')()}} {{script}} {{run}} ${window.pwned=1}",
    "\\u003cscript\\u003ewindow.pwned=1\\u003c/script\\u003e",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "\u2028\u2029window.pwned=1\u2028",
    "\u202egnp.exe\u202c \u200f\u0007\u001b[31m\u0000\u009b",
    "__proto__",
    "data:text/html,<script>window.pwned=1</script>",
    "\ud83e 夜の灯台 مساء " + "🦊" * 50,
    "a" * 5_000,
)  # fmt: skip


def picture(colour: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small JPEG of one colour."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, (colour % 256, 90, 255 - colour % 256)).save(file, "JPEG")
    return file.getvalue()


class Folder:
    """An output folder with its lists and images."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._count = 0

    def saved(self, *, with_file: bool = True, **facts: Any) -> dict[str, Any]:
        """Add a saved image."""
        name = facts.get("file_name", f"{self._count:06}.jpg")
        row = {
            "file_name": name, "prompt": f"picture {self._count}", "model": "flux-dev", "seed": 1,
            "parameters": {}, "job_id": f"job-{self._count}", "width": 64, "height": 48,
            "format": "jpeg", "bytes": 700, "cost": 0.025, "timings": {"submit": 0.1, "polls": 2},
            "provider": "cometapi", "prompt_used": None, "extras": {},
            "finished_at": f"2026-01-02T03:04:05.{self._count:06}+00:00",
        }  # fmt: skip
        if with_file:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_bytes(picture(self._count * 7))
        return self._add("metadata.jsonl", row | facts)

    def failed(self, **facts: Any) -> dict[str, Any]:
        """Add a failure."""
        row = {
            "prompt": f"failure {self._count}", "model": "flux-dev", "where": None,
            "cause": "moderated", "message": "Request Moderated", "paid": "unknown",
            "price": 0.025, "job_id": None, "polling_url": None, "extras": {},
        }  # fmt: skip
        return self._add("failures.jsonl", row | facts)

    def _add(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        row = {"index": self._count, "key": f"{self._count:064x}"} | row
        self._count += 1
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row


def cards_of(page: bytes) -> list[dict[str, Any]]:
    """Return the cards of a page, as its script reads them."""
    text = page.decode()
    block = text.split('<script type="application/json" id="run">')[1].split("</script>")[0]
    return list(json.loads(block)["cards"])
