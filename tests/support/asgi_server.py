"""Runs an ASGI app with uvicorn in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.simulator_sessions import until


@asynccontextmanager
async def serving(app: Any, *, port: int = 0, **options: Any) -> AsyncIterator[str]:
    """Run an ASGI app on a port of this machine, in this loop (0: a free one); yield its URL."""
    uvicorn = pytest.importorskip("uvicorn")
    config = uvicorn.Config(app, port=port, log_level="error", ws="none", loop="none", **options)
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    task = asyncio.create_task(server.serve([socket]))
    await until(lambda: server.started or task.done())
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
