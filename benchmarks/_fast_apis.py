"""What the benchmarks' server answers in the APIs of CometAPI, BFL, Replicate and fal."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from benchmarks._fast_server import World

_BFL = b"/v1/flux-"  #: start of a submission's path at BFL; Replicate's is /v1/models/…
#: the answer for an address that no API here has, such as that of the account's balance
NOT_FOUND = b'{"error":{"message":"not found"}}'


def posted(world: World, path: bytes, target: bytes, body: bytes) -> bytes | None:
    """Return the answer to a submission, in the API of its path."""
    job = world.submit(body)
    if job is None:
        return None
    if path.startswith((b"/flux/", _BFL)):
        folder = path[: path.index(b"/v1/")]
        url = b"%b%b/v1/get_result?id=%b" % (world.url, folder, job)
        return b'{"id":"%b","polling_url":"%b"}' % (job, url)
    if path.startswith(b"/v1/"):
        return _prediction(world, job, b"starting")
    url = b"%b%b/requests/%b" % (world.tls_url, path, job)
    return (
        b'{"request_id":"%b","response_url":"%b","status_url":"%b/status",'
        b'"cancel_url":"%b/cancel"}' % (job, url, url, url)
    )


def polled(world: World, path: bytes, target: bytes, body: bytes) -> bytes | None:
    """Return the answer to a poll of Flux, Replicate or fal (which polls twice), or a page of the
    list of tasks."""
    if path == b"/api/task/self":
        asked = dict(parse_qsl(target.partition(b"?")[2].decode()))
        return world.tasks(int(asked["p"]), int(asked["page_size"]))
    if path.endswith(b"/v1/get_result"):
        job = target[-32:]
        match world.is_ready(job):
            case None:
                return None
            case False:
                return b'{"id":"%b","status":"Pending","result":null}' % job
        return result(world, job)
    if path.startswith(b"/v1/predictions/"):
        job = path[-32:]
        ready = world.is_ready(job)
        if ready is None:
            return None
        return _prediction(world, job, b"succeeded" if ready else b"processing")
    if b"/requests/" not in path:
        return NOT_FOUND
    job, asks_status = path.removesuffix(b"/status")[-32:], path.endswith(b"/status")
    ready = world.is_ready(job)
    if ready is None:
        return None
    if asks_status:
        status = b"COMPLETED" if ready else b"IN_PROGRESS"
        return b'{"status":"%b","logs":null,"metrics":{}}' % status
    return b'{"images":[{"url":"%b"}],"seed":42}' % world.sample(job)


def result(world: World, job: bytes) -> bytes:
    """Return what a poll and a callback of Flux say about a job that has ended."""
    prompt = b"prompt %d" % int(job[16:24], 16)  # the proof whose job it is
    made = b'{"sample":"%b","prompt":"%b","seed":42}' % (world.sample(job), prompt)
    return b'{"id":"%b","status":"Ready","result":%b}' % (job, made)


def _prediction(world: World, job: bytes, status: bytes) -> bytes:
    output = b"null"
    if status == b"succeeded":
        output = b'["%b"]' % world.sample(job)
    get = b"%b/v1/predictions/%b" % (world.url, job)
    return (
        b'{"id":"%b","status":"%b","error":null,"urls":{"get":"%b","cancel":"%b/cancel"},'
        b'"model":"m","version":"hidden","input":{},"output":%b,"logs":""}'
        % (job, status, get, get, output)
    )
