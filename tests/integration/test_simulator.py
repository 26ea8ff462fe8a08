"""The simulator over sockets, used by a plain HTTP client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.patience import patient
from yarl import URL

from fluxasync.simulator import Scenario, Simulator, serve
from fluxasync.simulator.job_log import JobLog

BODY = {"prompt": "a fox", "width": 256, "height": 256, "seed": 1}


@asynccontextmanager
async def simulated(**scenario: Any) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    scenario.setdefault("latency", (0, 0))
    async with Simulator(Scenario(**scenario)) as sim, aiohttp.ClientSession() as http:
        yield sim, http


async def sample_of(sim: Simulator, http: aiohttp.ClientSession, **parameters: Any) -> str:
    """Make an image in CometAPI's dialect and return its URL."""
    async with http.post(f"{sim.url}/flux/v1/flux-dev", json=BODY | parameters) as answer:
        job_id = (await answer.json())["id"]
    async with http.get(f"{sim.url}/flux/v1/get_result", params={"id": job_id}) as answer:
        return str((await answer.json())["result"]["sample"])


def exact(url: str) -> URL:
    return URL(url, encoded=True)


@pytest.mark.asyncio
async def test_an_image_the_comet_way() -> None:
    """Submit and poll on one origin, download from another, with checksum and Date."""
    async with simulated() as (sim, http):
        url = await sample_of(sim, http)
        assert URL(url).origin() != URL(sim.url).origin()
        async with http.get(exact(url)) as answer:
            body = await answer.read()
            assert answer.status == 200
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        assert base64.b64encode(digest).decode() == answer.headers["Content-MD5"]
        assert int(answer.headers["Content-Length"]) == len(body)
        assert [charge.delivered for charge in sim.charges] == [True]


@pytest.mark.asyncio
async def test_an_image_the_bfl_way_is_polled_at_its_region() -> None:
    """polling_url is on another port; the origin does not know the job."""
    async with simulated(key="k") as (sim, http):
        headers = {"x-key": "k"}
        async with http.post(f"{sim.url}/v1/flux-dev", json=BODY, headers=headers) as answer:
            job = await answer.json()
        assert not job["polling_url"].startswith(sim.url)
        async with http.get(job["polling_url"], headers=headers) as answer:
            assert (await answer.json())["status"] == "Ready"
        async with http.get(f"{sim.url}/v1/get_result?id={job['id']}", headers=headers) as answer:
            assert answer.status == 404
        async with http.get(f"{sim.url}/v1/credits", headers=headers) as answer:
            assert (await answer.json())["credits"] > 0
        assert sim.world.leaks == {}


@pytest.mark.asyncio
async def test_a_comet_key_at_the_regional_host_is_noticed() -> None:
    """F61: CometAPI's polling_url is another host; a key sent there is recorded as a leak."""
    async with simulated() as (sim, http):
        async with http.post(f"{sim.url}/flux/v1/flux-dev", json=BODY) as answer:
            job = await answer.json()
        async with http.get(job["polling_url"], headers={"Authorization": "Bearer k"}) as answer:
            assert answer.status == 404
        assert sim.world.leaks["region"] == 1


@pytest.mark.asyncio
async def test_a_requoted_url_is_refused() -> None:
    """F83: yarl's default quoting breaks the signature; exact bytes do not."""
    async with simulated() as (sim, http):
        url = await sample_of(sim, http)
        statuses = []
        for target in (URL(url), exact(url)):
            async with http.get(target) as answer:
                statuses.append(answer.status)
        assert statuses == [403, 200]


@pytest.mark.asyncio
async def test_a_range_is_served() -> None:
    """The rest of an interrupted image can be fetched with a range."""
    async with simulated(image_bytes=20_000) as (sim, http):
        url = await sample_of(sim, http)
        async with http.get(exact(url), headers={"Range": "bytes=19000-"}) as answer:
            assert (answer.status, len(await answer.read())) == (206, 1000)


@pytest.mark.asyncio
async def test_a_lost_reply_is_a_broken_connection_and_one_charge() -> None:
    """F36: the client gets no answer, by FIN or RST, and the charge is recorded."""
    async with simulated(faults=["lost-reply"]) as (sim, http):
        for _ in range(8):
            with pytest.raises(aiohttp.ClientError):
                await http.post(f"{sim.url}/flux/v1/flux-dev", json=BODY)
        assert len(sim.charges) == 8


@pytest.mark.asyncio
async def test_truncation_shows_by_length_or_only_by_the_bytes() -> None:
    """F71 and F72: some short bodies are a connection error, some look complete."""
    async with simulated(faults=["truncated"], image_bytes=20_000) as (sim, http):
        seen = set()
        for seed in range(12):
            url = await sample_of(sim, http, seed=seed)
            async with http.get(exact(url)) as answer:
                try:
                    seen.add(len(await answer.read()))
                except aiohttp.ClientPayloadError:
                    seen.add(-1)
        assert seen == {-1, 10_000}


@pytest.mark.asyncio
async def test_a_download_can_be_reset() -> None:
    """F71: the connection is reset in the middle of the image; the second download succeeds."""
    async with simulated(faults=["download-reset"], image_bytes=200_000) as (sim, http):
        url = await sample_of(sim, http)
        with pytest.raises(aiohttp.ClientError):
            async with http.get(exact(url)) as answer:
                await answer.read()
        async with http.get(exact(url)) as answer:
            assert len(await answer.read()) == 200_000


@pytest.mark.asyncio
async def test_a_slow_image_arrives_whole() -> None:
    """F86: sent slowly, but completely."""
    faults = {"faults": ["slow"], "image_bytes": 20_000, "slow_bytes_per_second": 200_000}
    async with simulated(**faults) as (sim, http):
        answer = await http.get(exact(await sample_of(sim, http)))
        assert len(await answer.read()) == 20_000


@pytest.mark.asyncio
async def test_a_poll_can_be_reset() -> None:
    """F50: the connection drops twice, because aiohttp repeats a GET once; then polls succeed."""
    async with simulated(faults=["poll-reset"], repeats=2) as (sim, http):
        async with http.post(f"{sim.url}/flux/v1/flux-dev", json=BODY) as answer:
            params = {"id": (await answer.json())["id"]}
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"{sim.url}/flux/v1/get_result", params=params)
        async with http.get(f"{sim.url}/flux/v1/get_result", params=params) as answer:
            assert (await answer.json())["status"] == "Ready"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        pytest.param("POST", "/v2/flux-dev", 301, "text/html", id="F16 comet wrong path"),
        pytest.param("POST", "/v1/", 404, "application/json", id="bfl wrong path"),
        pytest.param("POST", "/v1/flux-9", 404, "application/json", id="bfl unknown model"),
        pytest.param("GET", "/v1/flux-dev", 405, "application/json", id="wrong method"),
        pytest.param("GET", "/", 200, "text/html", id="landing page"),
    ],
)
async def test_wrong_paths_are_answered_as_the_vendors_do(
    method: str, path: str, status: int, kind: str
) -> None:
    """An unknown path is a redirect to HTML at CometAPI, JSON at BFL."""
    async with (
        simulated() as (sim, http),
        http.request(method, sim.url + path, allow_redirects=False, json=BODY) as answer,
    ):
        assert (answer.status, answer.content_type) == (status, kind)


@pytest.mark.asyncio
async def test_a_large_body_is_read_whole() -> None:
    """Image inputs are megabytes of base64; no default limit applies."""
    async with simulated() as (sim, http):
        body = BytesIO(json.dumps(BODY | {"image_prompt": "A" * 3_000_000}).encode())
        async with http.post(f"{sim.url}/v1/flux-dev", data=body) as answer:
            assert answer.status == 200


@pytest.mark.asyncio
async def test_the_ledger_can_be_read_over_http() -> None:
    """A simulator in another process reports its totals."""
    async with simulated() as (sim, http):
        async with http.get(exact(await sample_of(sim, http))) as answer:
            await answer.read()
        async with http.get(f"{sim.url}/simulator/ledger") as answer:
            ledger = await answer.json()
    counts = {
        name: ledger[name] for name in ("charges", "delivered", "posts", "polls", "max_active")
    }
    assert counts == {"charges": 1, "delivered": 1, "posts": 1, "polls": 1, "max_active": 0}


@pytest.mark.asyncio
async def test_charges_can_be_read_after_the_end_and_ports_are_free_again() -> None:
    """Leaving the block closes the ports, even while a reply is delayed."""
    async with aiohttp.ClientSession() as http:
        async with Simulator(Scenario(submit_delay=60, latency=(0, 0))) as sim:
            late = asyncio.create_task(http.post(f"{sim.url}/flux/v1/flux-dev", json=BODY))
            while not sim.charges:  # noqa: ASYNC110 — the server has no event for it
                await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientError):
            await late
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(sim.url)
    assert len(sim.charges) == 1


@pytest.mark.asyncio
async def test_serve_runs_until_cancelled() -> None:
    """`serve` calls `started` when the ports are open, and closes them when cancelled."""
    opened: asyncio.Queue[Simulator] = asyncio.Queue()
    running = asyncio.create_task(serve(started=opened.put_nowait))
    simulator = await opened.get()
    async with aiohttp.ClientSession() as http, http.get(simulator.url) as answer:
        assert answer.status == 200
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# --- jobs that outlive their simulator ------------------------------------------------------------


async def bfl_sample(sim: Simulator, http: aiohttp.ClientSession, polling_url: str) -> str:
    async with http.get(exact(polling_url)) as answer:
        return str((await answer.json())["result"]["sample"])


@pytest.mark.asyncio
@pytest.mark.parametrize("away", [0.0, 700.0, 1e6], ids=["at once", "dead URL", "days later"])
async def test_the_jobs_of_a_simulator_are_taken_up_by_the_next_one(
    tmp_path: Path, away: float
) -> None:
    """Both dialects find their jobs again after any time, with the same image."""
    log = tmp_path / "simulator.jsonl"
    async with simulated(job_log=log) as (sim, http):
        async with http.post(f"{sim.url}/flux/v1/flux-dev", json=BODY) as answer:
            comet = (await answer.json())["id"]
        async with http.post(f"{sim.url}/v1/flux-dev", json=BODY | {"seed": 2}) as answer:
            polling_url = (await answer.json())["polling_url"]
        first = await sample_of(sim, http, seed=3)
        async with http.get(exact(first)) as answer:
            await answer.read()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        row |= {name: row[name] - away for name in ("started_at", "ends_at") if name in row}
    torn = '{"id": "torn", "num'
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    async with simulated(job_log=log) as (sim, http):
        assert [charge.delivered for charge in sim.charges] == [False, False, True]
        async with http.get(f"{sim.url}/flux/v1/get_result", params={"id": comet}) as answer:
            urls = [str((await answer.json())["result"]["sample"])]
        urls.append(await bfl_sample(sim, http, polling_url))
        if away > 600:
            for url in urls:
                async with http.get(exact(url)) as answer:
                    assert answer.status == 403
            async with http.get(f"{sim.url}/flux/v1/get_result", params={"id": comet}) as answer:
                urls = [str((await answer.json())["result"]["sample"])]
            urls.append(await bfl_sample(sim, http, polling_url))
        for url in urls:
            async with http.get(exact(url)) as answer:
                assert answer.status == 200
        assert [charge.delivered for charge in sim.charges] == [True] * 3
        await sample_of(sim, http, seed=4)
    assert len(JobLog(log).earlier_jobs()[0]) == 4


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "jobs"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"[1]\n\xff\nnull\n{}\n", 0, id="other lines"),
        pytest.param(b'{"id": 1e999}\n' + b"[" * 5000 + b"\n", 0, id="deep"),
    ],
)
async def test_invalid_lines_of_a_job_log_are_ignored(
    tmp_path: Path, content: bytes, jobs: int
) -> None:
    """T19: invalid lines are ignored."""
    log = tmp_path / "simulator.jsonl"
    log.write_bytes(content)
    async with simulated(job_log=log) as (sim, http):
        assert len(sim.charges) == jobs
        await sample_of(sim, http)
    assert len(JobLog(log).earlier_jobs()[0]) == jobs + 1


def test_a_job_log_that_is_a_link_or_a_pipe_is_refused(tmp_path: Path) -> None:
    """T19: a link is not followed, and a pipe does not block."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=name):
            JobLog(tmp_path / name).earlier_jobs()
    assert not (tmp_path / "elsewhere").exists()


#: the command without the extra `cli`
COMMAND = (
    "import sys; sys.modules['cyclopts'] = None;"
    "from fluxasync.simulator.__main__ import main; sys.exit(main())"
)


def command(*options: str, **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", COMMAND, *options], text=True, **streams)


@pytest.mark.slow
def test_the_command_needs_no_extra_and_ends_with_its_parent() -> None:
    """A killed run leaves no simulator behind: it exits when its standard input closes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with command("--port", "0", "--with-parent", **pipes) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline().startswith("http://127.0.0.1:")
        child.stdin.close()
        assert child.wait(timeout=patient()) == 0


@pytest.mark.parametrize(
    ("option", "code", "expected"),
    [
        pytest.param(("--fault", "flood:1"), 2, "lost-reply", id="unknown fault"),
        pytest.param(("--latency", "fast"), 2, "0.5..2", id="latency"),
        pytest.param(("--job-log", "/dev/null"), 1, "/dev/null", id="job log is no file"),
    ],
)
def test_the_command_names_what_it_refuses(
    option: tuple[str, str], code: int, expected: str
) -> None:
    """A wrong value is exit code 2, a file or port that cannot be used exit code 1."""
    with command("--port", "0", *option, stderr=subprocess.PIPE) as child:
        _, text = child.communicate(timeout=patient())
    assert child.returncode == code
    assert expected in text.splitlines()[-1]
