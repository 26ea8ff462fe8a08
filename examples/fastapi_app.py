"""One session in a FastAPI app: one endpoint returns an image, another streams a batch.

    uvicorn fastapi_app:app                  # COMETAPI_KEY or BFL_API_KEY in the environment
    curl -o fox.jpg 'localhost:8000/image?prompt=a+red+fox'
    curl -N -d '["a fox", "a lamp"]' -H 'Content-Type: application/json' localhost:8000/batches/two

FLUX_BASE_URL sets another address, for example that of `fluxasync simulate`.
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

#: folder of the batches, and of paid images whose clients disconnected
OUT = Path(os.environ.get("IMAGES", "images"))
OUT.mkdir(parents=True, exist_ok=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one session for the app; it owns the connections and counts the active jobs."""
    async with FluxSession(base_url=os.environ.get("FLUX_BASE_URL")) as flux:
        app.state.flux = flux
        yield
        await keep_unclaimed(flux)


app = FastAPI(lifespan=lifespan)


@app.get("/image")
async def image(request: Request, prompt: str, model: str = "flux-dev") -> Response:
    """Make one image and return it, with priority over the batches."""
    flux: FluxSession = request.app.state.flux
    try:
        saved = await while_connected(request, flux.generate(prompt, model=model, priority=1))
    except (ConfigError, Moderated) as error:  # an invalid or moderated request
        raise HTTPException(422, str(error)) from error
    except FluxError as error:
        raise HTTPException(502, str(error)) from error
    if saved is None:  # the client has disconnected; a paid job is in flux.unclaimed
        return Response(status_code=499)
    return Response(saved.data, media_type=f"image/{saved.stored.format}")


@app.post("/batches/{name}")
async def batch(
    request: Request, name: str, prompts: list[str], model: str = "flux-dev"
) -> StreamingResponse:
    """Make images in the folder `name`; stream a line of JSON for each when it is saved.

    Disconnecting stops new submissions. The same call again continues the run.
    """
    if not re.fullmatch(r"[a-z0-9-]{1,40}", name):
        raise HTTPException(422, "a name consists of lower-case letters, digits and dashes")
    lines = outcomes(request.app.state.flux, prompts, model, OUT / name)
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def outcomes(
    flux: FluxSession, prompts: list[str], model: str, out: Path
) -> AsyncIterator[str]:
    """Yield one line per outcome. If the client disconnects, the server cancels this generator:
    nothing more is submitted, and paid jobs are in the folder's journal."""
    try:
        async with Batch(flux, Prompts(prompts, model=model), out=out) as running:
            async for outcome in running:
                what = str(outcome.path) if isinstance(outcome, Saved) else None
                yield json.dumps({"saved": what, "index": outcome.index}) + "\n"
        yield json.dumps({"summary": str(running.summary)}) + "\n"
    except FluxError as error:  # the HTTP status has already been sent
        yield json.dumps({"error": str(error)}) + "\n"


async def while_connected(request: Request, image: Coroutine[Any, Any, Saved]) -> Saved | None:
    """Await an image; return None if the client disconnects first."""
    working = asyncio.ensure_future(image)
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
    """Before the app ends, download paid images whose clients disconnected."""
    for job in flux.unclaimed:
        try:
            await flux.collect(job, to=OUT / f"unclaimed-{job.job_id}.jpg")
        except FluxError as error:
            print(f"job {job.job_id} was not downloaded: {error}")
