"""A FastAPI app that the provider calls when an image is ready.

    uvicorn --no-access-log webhook_fastapi:app      # COMETAPI_KEY or BFL_API_KEY is set
    curl -o fox.jpg 'localhost:8000/image?prompt=a+red+fox'

The access log is off because the path of a callback has a token, which would prove a forged one.

WEBHOOK_URL is the app's public address with /flux, for example https://app.example/flux; a proxy or
tunnel in front of the app ends TLS. WEBHOOK_SECRET is sent with each submission and checked in each
callback. With BFL, FLUX_BASE_URL must be a regional address, such as https://api.eu.bfl.ai.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Response

from fluxasync import ConfigError, FluxError, FluxSession, Moderated, Polling
from fluxasync.webhooks import Webhook

flux = FluxSession(
    base_url=os.environ.get("FLUX_BASE_URL"),
    polling=Polling(
        webhook=Webhook(
            url=os.environ.get("WEBHOOK_URL", "http://127.0.0.1:8000/flux"),
            secret=os.environ.get("WEBHOOK_SECRET"),
        )
    ),
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the session with the app; without callbacks it polls as usual."""
    async with flux:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/flux", flux.receiver)  # takes POST /flux/{token}


@app.get("/image")
async def image(prompt: str, model: str = "flux-dev") -> Response:
    """Make one image; the provider's callback ends the wait for it."""
    try:
        saved = await flux.generate(prompt, model=model)
    except (ConfigError, Moderated) as error:  # an invalid or moderated request
        raise HTTPException(422, str(error)) from error
    except FluxError as error:
        raise HTTPException(502, str(error)) from error
    return Response(saved.data, media_type=f"image/{saved.stored.format}")


@app.get("/callbacks")
async def callbacks() -> dict[str, int]:
    """Say whether callbacks arrive: `known` should be about the number of images."""
    counts = flux.receiver.counts
    return {"known": counts.known, "unknown": counts.unknown, "refused": counts.refused}
