"""A small Flux-like server that reports a cost with a submission and another at the job's end.

`end` is how each job ends: saved, download (no image), expired (no URL works, the job is gone),
moderated, failed, lost, deadline (pending for ever) or no-url. `costs` are the figures of the
terminal polls in their order, the last one for all later polls; NOTHING leaves the field out.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from attrs import define, field

IMAGE = (Path(__file__).parents[1] / "cases" / "data" / "small.jpg").read_bytes()
NOTHING = object()

_WORDS = {"moderated": "Content Moderated", "failed": "Error", "deadline": "Pending"}


@define
class CostServer:
    """`submitted` counts the submissions; the fields may change between two calls."""

    end: str = "saved"
    at_submit: Any = NOTHING
    costs: Sequence[Any] = (NOTHING,)
    broken: int = 0  #: downloads that are no image, before the first that is
    url: str = ""
    submitted: int = 0
    polled: int = 0
    downloads: int = 0
    _ended: dict[str, int] = field(factory=dict)  #: terminal polls by job

    async def submit(self, request: web.Request) -> web.Response:
        self.submitted += 1
        job = str(uuid.uuid4())
        answer = {"id": job, "polling_url": f"{self.url}/v1/get_result?id={job}"}
        return _json(answer | _cost(self.at_submit))

    async def poll(self, request: web.Request) -> web.Response:
        self.polled += 1
        job = request.query["id"]
        nth = self._ended.get(job, 0)
        if self.end == "lost" or (self.end == "expired" and nth):
            return _json({"id": job, "status": "Task not found"}, status=404)
        answer: dict[str, Any] = {
            "id": job,
            "status": _WORDS.get(self.end, "Ready"),
            "result": None,
        }
        if self.end == "deadline":
            return _json(answer | {"cost": 0})
        if answer["status"] == "Ready" and self.end != "no-url":
            answer["result"] = {"sample": f"{self.url}/image/{job}/{nth}"}
        self._ended[job] = nth + 1
        return _json(answer | _cost(self.costs[min(nth, len(self.costs) - 1)]))

    async def image(self, _: web.Request) -> web.Response:
        self.downloads += 1
        if self.end == "expired":
            return web.Response(status=403)
        is_broken = self.end == "download" or self.downloads <= self.broken
        return web.Response(body=b"no image" if is_broken else IMAGE, content_type="image/jpeg")


@asynccontextmanager
async def cost_server(**behaviour: Any) -> AsyncIterator[CostServer]:
    """Serve on loopback."""
    server = CostServer(**behaviour)
    app = web.Application()
    app.router.add_post("/v1/{model:.+}", server.submit)
    app.router.add_get("/v1/get_result", server.poll)
    app.router.add_get("/image/{job}/{nth}", server.image)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def _cost(told: Any) -> dict[str, Any]:
    return {} if told is NOTHING else {"cost": told}


def _json(answer: dict[str, Any], *, status: int = 200) -> web.Response:
    text = json.dumps(answer)  # with NaN as Python's servers write it
    return web.Response(text=text, status=status, content_type="application/json")
