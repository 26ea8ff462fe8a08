"""The simulator for a client of another API: Replicate's predictions.

    python -m benchmarks._dialects NAME=VALUE…

Starts a simulator with this scenario, and a second port for the same world, so jobs, durations and
the limit of active jobs are the same for both APIs. Prints both URLs on one line and ends when its
input closes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from benchmarks._server import read_scenario
from fluxasync.simulator import Scenario, Simulator, World

_FILES = "/files"
_STATUS = {"Pending": "processing", "Ready": "succeeded"}


@contextmanager
def bilingual(**scenario: object) -> Iterator[tuple[str, str]]:
    """Start a simulator in its own process; yield its URL and the URL of its Replicate API."""
    arguments = [f"{name}={value!r}" for name, value in scenario.items()]
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._dialects", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        native, replicate = child.stdout.readline().split()
        yield native, replicate
    finally:
        child.stdin.close()
        child.wait(timeout=20)


class Replicate:
    """Replicate's HTTP API over a world: create a prediction, get it, get its file.

    Files pass through this server, because the client sends its key with downloads and the
    simulator's image store refuses keys.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.url = ""

    async def open(self) -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(_FILES):
            return self._file(request.raw_path.removeprefix(_FILES))
        parts = request.path.strip("/").split("/")
        if request.method == "POST" and parts[-1] == "predictions":
            return self._create(parts[-2], await request.read())
        if request.method == "GET" and parts[-2] == "predictions":
            return self._get(parts[-1])
        return web.Response(status=404)

    def _create(self, model: str, body: bytes) -> web.Response:
        answer = self._world.submit(
            _now(),
            dialect="comet",
            model=model,
            headers={},
            body=json.dumps(json.loads(body)["input"]).encode(),
        )
        if answer.status != 200:
            return web.json_response({"detail": answer.body.decode()}, status=answer.status)
        job_id = json.loads(answer.body)["id"]
        return web.json_response(self._prediction(job_id, "starting"), status=201)

    def _get(self, job_id: str) -> web.Response:
        answer = self._world.poll(_now(), dialect="comet", job_id=job_id, headers={})
        row: dict[str, Any] = json.loads(answer.body)
        result = row["result"]
        status = _STATUS.get(row["status"], "failed")
        output = result and [self.url + _FILES + urlsplit(result["sample"])._replace(
            scheme="", netloc=""
        ).geturl()]  # fmt: skip
        return web.json_response(self._prediction(job_id, status, output=output))

    def _file(self, path_query: str) -> web.Response:
        answer = self._world.deliver(_now(), path_query=path_query, headers={})
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    def _prediction(self, job_id: str, status: str, **known: Any) -> dict[str, Any]:
        urls = {"get": f"{self.url}/v1/predictions/{job_id}", "cancel": f"{self.url}/cancel"}
        empty = {"model": "m", "version": "hidden", "input": {}, "output": None, "logs": ""}
        return {"id": job_id, "status": status, "error": None, "urls": urls} | empty | known


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _serve(scenario: Scenario) -> None:
    async with Simulator(scenario) as simulator:
        replicate = Replicate(simulator.world)
        runner = await replicate.open()
        print(simulator.url, replicate.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(read_scenario(sys.argv[1:])))
