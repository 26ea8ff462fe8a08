"""A small Flux-like server whose answers differ from the request in ways that gateways differ.

Submit, poll and delivery of both dialects. Words in brackets in a prompt choose the answer:
`[spaces] [crlf] [nfc]` echo the prompt with single spaces, with LF, in NFC; `[cut] [html] [other]`
echo its first 77 characters, HTML-escaped, another text; `[settle] [zero]` report a cost of 3
credits with the submission and of 7.5 or 0 with Ready; `[refused]` is Content Moderated with a
settled cost of 0.
"""

from __future__ import annotations

import html
import io
import re
import unicodedata
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from attrs import define, field
from PIL import Image

_ECHOES: dict[str, Callable[[str], str]] = {
    "spaces": lambda text: " ".join(text.split()),
    "crlf": lambda text: text.replace("\r\n", "\n"),
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "cut": lambda text: text[:77],
    "html": html.escape,
    "other": lambda _: "a red fox in the snow",
}


@define
class EchoServer:
    """`submitted` has the path and the body of each submission."""

    url: str = ""
    submitted: list[tuple[str, dict[str, Any]]] = field(factory=list)
    _jobs: dict[str, dict[str, Any]] = field(factory=dict)

    async def submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.submitted.append((request.path, body))
        job = str(uuid.uuid4())
        self._jobs[job] = body
        answer = {"id": job, "polling_url": f"{self.url}/v1/get_result?id={job}"}
        if _words(body) & {"settle", "zero", "refused"}:
            answer |= {"cost": 3.0, "input_mp": 0.0, "output_mp": 1.0}
        return web.json_response(answer)

    async def poll(self, request: web.Request) -> web.Response:
        job = request.query["id"]
        if job not in self._jobs:
            return web.json_response({"id": job, "status": "Task not found"}, status=404)
        body = self._jobs[job]
        words = _words(body)
        if "refused" in words:
            return web.json_response(
                {"id": job, "status": "Content Moderated", "result": None, "cost": 0}
            )
        result = {
            "sample": f"{self.url}/image/{job}",
            "prompt": _echoed(str(body.get("prompt", ""))),
            "seed": body.get("seed") or 42,
        }
        answer: dict[str, Any] = {"id": job, "status": "Ready", "result": result}
        if words & {"settle", "zero"}:
            answer["cost"] = 0 if "zero" in words else 7.5
        return web.json_response(answer)

    async def image(self, _: web.Request) -> web.Response:
        return web.Response(body=_picture(), content_type="image/jpeg")


@asynccontextmanager
async def echo_server() -> AsyncIterator[EchoServer]:
    """Serve on loopback."""
    server = EchoServer()
    app = web.Application(client_max_size=2**27)
    for prefix in ("", "/flux"):
        app.router.add_post(prefix + "/v1/{model:.+}", server.submit)
        app.router.add_get(prefix + "/v1/get_result", server.poll)
    app.router.add_get("/image/{job}", server.image)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def _words(body: dict[str, Any]) -> set[str]:
    return set(re.findall(r"\[([a-z]+)\]", str(body.get("prompt", ""))))


def _echoed(prompt: str) -> str:
    for word in _words({"prompt": prompt}):
        if word in _ECHOES:
            return _ECHOES[word](prompt)
    return prompt


def _picture() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((320, 256), 60).convert("RGB").save(out, "JPEG")
    return out.getvalue()
