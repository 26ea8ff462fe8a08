"""One session in an aiohttp.web app: images on request, and a batch in the background.

    python aiohttp_app.py                    # COMETAPI_KEY or BFL_API_KEY in the environment
    curl -o fox.jpg 'localhost:8080/image?prompt=a+red+fox'

FLUX_BASE_URL sets another address, for example that of `fluxasync simulate`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from fluxasync import Batch, FluxError, FluxSession, Moderated, Prompts

FLUX = web.AppKey("flux", FluxSession)
STOCK = web.AppKey("stock", Batch)
OUT = Path(os.environ.get("IMAGES", "images"))


async def session(app: web.Application) -> AsyncIterator[None]:
    """Open the session with the app and close it with the app."""
    async with FluxSession(base_url=os.environ.get("FLUX_BASE_URL")) as flux:
        app[FLUX] = flux
        yield


async def stock(app: web.Application) -> AsyncIterator[None]:
    """Fill a folder in the background, with the slots that requests do not need."""
    prompts = os.environ.get("STOCK", "a red fox\na lamp").splitlines()
    async with Batch(
        app[FLUX], Prompts(prompts, parameters={"width": 512}), out=OUT, grace=3
    ) as batch:
        app[STOCK] = batch
        filling = asyncio.create_task(fill(batch))
        yield
        batch.stop()  # paid jobs have three seconds to be saved
        await filling


async def fill(batch: Batch) -> None:
    try:
        async for _ in batch:
            pass
    except FluxError as error:
        print(f"the stock is incomplete: {error}")


async def image(request: web.Request) -> web.Response:
    """Make one image and return it, with priority over the stock."""
    prompt = request.query.get("prompt", "")
    try:
        saved = await request.app[FLUX].generate(prompt, model="flux-dev", priority=1)
    except Moderated as error:
        raise web.HTTPUnprocessableEntity(text=str(error)) from error
    except ValueError as error:  # a ConfigError is a ValueError: the request is invalid
        raise web.HTTPBadRequest(text=str(error)) from error
    except FluxError as error:
        raise web.HTTPBadGateway(text=str(error)) from error
    return web.Response(body=saved.data, content_type=f"image/{saved.stored.format}")


async def status(request: web.Request) -> web.Response:
    flux, summary = request.app[FLUX], request.app[STOCK].summary
    return web.json_response({"in_flight": flux.in_flight, "stock": str(summary)})


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.cleanup_ctx.append(stock)  # after the session, so it is left before the session closes
    app.add_routes([web.get("/image", image), web.get("/status", status)])
    return app


if __name__ == "__main__":
    # a disconnecting client cancels the handler; a paid job is then in flux.unclaimed
    web.run_app(make_app(), handler_cancellation=True)
