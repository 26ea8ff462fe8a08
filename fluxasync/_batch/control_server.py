"""Answers at the socket in a run's folder: a JSON object a line, each way."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from .._store.control_socket import ControlSocket

logger = logging.getLogger("fluxasync")

#: bytes of a request; the longest one has a few dozen
_LONGEST = 4_096
#: connections at once; a further one is closed
_MOST = 16

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


class ControlServer:
    """Listens while a run lasts: `async with ControlServer(home, control.answer)`.

    `home` is the own folder of a run whose lock this process has. A run without a socket goes on:
    the folder says why there is none.
    """

    def __init__(self, home: Path, answer: Answer) -> None:
        self._home, self._answer = home, answer
        self._socket: ControlSocket | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        try:
            self._socket = ControlSocket(self._home)
        except OSError as error:
            logger.info("the run cannot be controlled from outside: %s", error)
            return self
        self._server = await asyncio.start_unix_server(
            self._serve, sock=self._socket.socket, limit=_LONGEST
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 — asyncio runs it as one
        self._clients.add(task)
        try:
            while len(self._clients) <= _MOST and (line := await reader.readline()):
                writer.write(json.dumps(self._reply(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # the client went away, sent no line, or the run is over
        finally:
            self._clients.discard(task)
            writer.close()

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return {"ok": False, "error": "a request is a JSON object on one line"}
        try:
            return self._answer(request)
        except Exception:  # a request must not end a run that spends money
            logger.warning("a request to control the run failed", exc_info=True)
            return {"ok": False, "error": "the request failed; the run goes on"}
