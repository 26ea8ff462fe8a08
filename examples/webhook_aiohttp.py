"""An aiohttp.web app that the provider calls when an image is ready.

    python webhook_aiohttp.py                # COMETAPI_KEY or BFL_API_KEY in the environment
    curl -o fox.jpg 'localhost:8080/image?prompt=a+red+fox'

WEBHOOK_URL is the app's public address with /flux, for example https://app.example/flux; a proxy or
tunnel in front of the app ends TLS. WEBHOOK_SECRET is sent with each submission and checked in each
callback. With BFL, FLUX_BASE_URL must be a regional address, such as https://api.eu.bfl.ai.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from aiohttp import web

from fluxasync import FluxError, FluxSession, Moderated, Polling
from fluxasync.webhooks import Webhook

FLUX = web.AppKey("flux", FluxSession)


async def opened(app: web.Application) -> AsyncIterator[None]:
    """Open the session with the app; without callbacks it polls as usual."""
    async with app[FLUX]:
        yield


async def image(request: web.Request) -> web.Response:
    """Make one image; the provider's callback ends the wait for it."""
    try:
        saved = await request.app[FLUX].generate(request.query.get("prompt", ""), model="flux-dev")
    except Moderated as error:
        raise web.HTTPUnprocessableEntity(text=str(error)) from error
    except ValueError as error:  # a ConfigError is a ValueError: the request is invalid
        raise web.HTTPBadRequest(text=str(error)) from error
    except FluxError as error:
        raise web.HTTPBadGateway(text=str(error)) from error
    return web.Response(body=saved.data, content_type=f"image/{saved.stored.format}")


async def callbacks(request: web.Request) -> web.Response:
    """Say whether callbacks arrive: `known` should be about the number of images."""
    counts = request.app[FLUX].receiver.counts
    return web.json_response({"known": counts.known, "refused": counts.refused})


def make_app() -> web.Application:
    webhook = Webhook(
        url=os.environ.get("WEBHOOK_URL", "http://127.0.0.1:8080/flux"),
        secret=os.environ.get("WEBHOOK_SECRET"),
    )
    flux = FluxSession(base_url=os.environ.get("FLUX_BASE_URL"), polling=Polling(webhook=webhook))
    app = web.Application()
    app[FLUX] = flux
    app.cleanup_ctx.append(opened)
    app.router.add_get("/image", image)
    app.router.add_get("/callbacks", callbacks)
    app.router.add_post("/flux/{token}", flux.receiver.aiohttp)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), access_log=None)  # a line of it would have a token
