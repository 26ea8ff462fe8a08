"""One session in a FastAPI app: an image for whoever waits, a batch for as long as they listen.

    uvicorn fastapi_app:app                  # COMETAPI_KEY or BFL_API_KEY in the environment
    curl -o fox.jpg 'localhost:8000/image?prompt=a+red+fox'
    curl -N -d '["a fox", "a lamp"]' -H 'Content-Type: application/json' localhost:8000/batches/two

FLUX_BASE_URL points the app to another address, such as that of `fluxasync simulate`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from fluxasync import Batch, ConfigError, FluxError, FluxSession, Moderated, Prompts, Saved

#: the folder of the batches, and of paid images whose visitors left
OUT = Path(os.environ.get("IMAGES", "images"))
OUT.mkdir(parents=True, exist_ok=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One session for the whole app: it holds the connections and counts the active jobs."""
    async with FluxSession(base_url=os.environ.get("FLUX_BASE_URL")) as flux:
        app.state.flux = flux
        yield
        await keep_unclaimed(flux)


app = FastAPI(lifespan=lifespan)


@app.get("/image")
async def image(request: Request, prompt: str, model: str = "flux-dev") -> Response:
    """Make one image and return it. It goes before the batches: somebody is waiting."""
    flux: FluxSession = request.app.state.flux
    try:
        saved = await while_connected(request, flux.generate(prompt, model=model, priority=1))
    except (ConfigError, Moderated) as error:  # what was asked for cannot be, or is not made
        raise HTTPException(422, str(error)) from error
    except FluxError as error:
        raise HTTPException(502, str(error)) from error
    if saved is None:  # the visitor has left; what was paid is in flux.unclaimed
        return Response(status_code=499)
    return Response(saved.data, media_type=f"image/{saved.stored.format}")


@app.post("/batches/{name}")
async def batch(
    request: Request, name: str, prompts: list[str], model: str = "flux-dev"
) -> StreamingResponse:
    """Make many images into the folder `name`; stream a line of JSON for each as it lands.

    Who hangs up stops the spending. The same call again carries on: see the journal.
    """
    if not re.fullmatch(r"[a-z0-9-]{1,40}", name):
        raise HTTPException(422, "a name is letters, digits and dashes")
    lines = outcomes(request.app.state.flux, prompts, model, OUT / name)
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def outcomes(
    flux: FluxSession, prompts: list[str], model: str, out: Path
) -> AsyncIterator[str]:
    """Yield a line an outcome. When the client hangs up, the server cancels this: the batch is
    left, nothing more is submitted, and paid jobs stay in the folder's journal."""
    try:
        async with Batch(flux, Prompts(prompts, model=model), out=out) as running:
            async for outcome in running:
                what = str(outcome.path) if isinstance(outcome, Saved) else None
                yield json.dumps({"saved": what, "index": outcome.index}) + "\n"
        yield json.dumps({"summary": str(running.summary)}) + "\n"
    except FluxError as error:  # the run has ended, and its status line is long gone
        yield json.dumps({"error": str(error)}) + "\n"


async def while_connected(request: Request, story: Coroutine[Any, Any, Saved]) -> Saved | None:
    """Await the story for as long as the client is there; None when it has left."""
    working = asyncio.ensure_future(story)
    leaving = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def keep_unclaimed(flux: FluxSession) -> None:
    """Before the app ends: fetch the images that were paid for, and whose visitors left."""
    for job in flux.unclaimed:
        try:
            await flux.collect(job, to=OUT / f"unclaimed-{job.job_id}.jpg")
        except FluxError as error:
            print(f"job {job.job_id} is not here: {error}")
