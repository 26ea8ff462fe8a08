"""Receives a provider's callbacks when jobs have ended, in an app of yours or with a listener.

For example, in an app that has `FluxSession(polling=Polling(webhook=hook))`::

    app.mount("/flux", receiver)                                  # FastAPI, Starlette, any ASGI
    app.router.add_post("/flux/{token}", receiver.aiohttp)        # aiohttp.web

A name in `__init__.pyi` is imported at its first use.
"""

from .._core.lazy_exports import lazy_exports as _lazy_exports

__getattr__, __dir__ = _lazy_exports(globals())
