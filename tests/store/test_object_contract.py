"""Every kind of store keeps what ObjectSink promises: memory, a folder, and real servers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from support.object_servers import ObjectServer
from support.sample_images import jpeg
from support.store_fixtures import skip_on_moto

from fluxasync import ImageRequest, Job, ObjectSink, SinkError
from fluxasync._core.models import Stored
from fluxasync._core.protocols import Chunks
from fluxasync._store.objects import Objects

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytestmark = pytest.mark.asyncio

Place = tuple[str, dict[str, str]]

JOB = Job(job_id="7f3a9c21", request=ImageRequest(prompt="a red fox", name="fox"))
IMAGE, OTHER = jpeg(payload=b"one" * 100), jpeg(payload=b"two" * 100)


async def _chunks(image: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(image), 100):
        yield image[start : start + 100]


async def _stored(sink: ObjectSink, image: bytes = IMAGE) -> Stored:
    return await sink.store(JOB.request, JOB, Chunks(_chunks(image), is_paid=True))


def _sink(place: Place, template: str = "{name}.{ext}") -> ObjectSink:
    url, options = place
    return ObjectSink(url, options=options, template=template)


async def _names(place: Place) -> list[str]:
    url, options = place
    found = await asyncio.to_thread(lambda: [*Objects(url, options).sizes()])
    return sorted(name for name, _ in found)


async def _sha256(place: Place, name: str) -> str | None:
    url, options = place
    return await asyncio.to_thread(Objects(url, options).sha256, name)


async def test_an_image_is_one_object_under_its_name(place: Place):
    """The object has the image's bytes; nothing else is left in the bucket, also of the probe."""
    async with _sink(place, "{slug}/{name}.{ext}") as sink:
        stored = await _stored(sink)
    assert (stored.path, stored.data) == (None, None)
    assert stored.place == f"{place[0]}/a-red-fox/fox.jpg"
    assert await _names(place) == ["a-red-fox/fox.jpg"]
    digest = await _sha256(place, "a-red-fox/fox.jpg")
    assert digest == stored.sha256 == hashlib.sha256(IMAGE).hexdigest()


async def test_the_same_image_again_is_the_same_object(place: Place):
    """A lost answer or a crash leaves an object; the next try adopts it."""
    async with _sink(place) as sink:
        first, second = await _stored(sink), await _stored(sink)
    assert first == second
    assert await _names(place) == ["fox.jpg"]


async def test_another_image_of_the_same_name_gets_a_number(place: Place):
    """No object is overwritten; also one of the same size keeps its content."""
    async with _sink(place) as sink:
        places = [(await _stored(sink, image)).place for image in (IMAGE, OTHER, OTHER)]
    assert [place.rpartition("/")[2] for place in places] == ["fox.jpg", "fox-2.jpg", "fox-2.jpg"]
    assert await _sha256(place, "fox.jpg") == hashlib.sha256(IMAGE).hexdigest()


async def test_of_eight_images_at_once_each_keeps_its_own_object(
    place: Place, request: pytest.FixtureRequest
):
    """Images of one name that arrive together are eight objects."""
    skip_on_moto(request)
    images = [jpeg(payload=bytes([number]) * 300) for number in range(8)]
    async with _sink(place) as sink:
        stored = await asyncio.gather(*(_stored(sink, image) for image in images))
    names = [each.place.rpartition("/")[2] for each in stored]
    assert len(set(names)) == 8
    assert [await _sha256(place, name) for name in names] == [each.sha256 for each in stored]


async def test_of_eight_sinks_that_store_one_image_one_creates_it(place: Place):
    """Runs on several machines that land the same image have one object between them."""
    sinks = [_sink(place) for _ in range(8)]

    async def run(sink: ObjectSink) -> Stored:
        async with sink:
            return await _stored(sink)

    stored = await asyncio.gather(*map(run, sinks))
    assert {each.place for each in stored} == {f"{place[0]}/fox.jpg"}
    assert await _names(place) == ["fox.jpg"]


async def test_of_eight_creators_exactly_one_wins(place: Place, request: pytest.FixtureRequest):
    """The object has the winner's content, whole, and the others are told that it exists."""
    skip_on_moto(request)
    url, options = place
    contents = [bytes([number]) * 50_000 for number in range(8)]
    stores = [Objects(url, options) for _ in contents]
    for turn in range(3):
        name = f"log/{turn}"
        created = await asyncio.gather(
            *(
                store.create(name, content, {})
                for store, content in zip(stores, contents, strict=True)
            )
        )
        assert created.count(True) == 1
        winner = contents[created.index(True)]
        assert await _sha256(place, name) == hashlib.sha256(winner).hexdigest()


async def test_what_an_object_holds_is_compared(place: Place):
    """Same size and content, another content of that size, another size, and no object."""
    url, options = place
    objects = Objects(url, options)
    assert await objects.create("a.jpg", IMAGE, {})
    sha256, other = (hashlib.sha256(image).hexdigest() for image in (IMAGE, OTHER))
    assert len(IMAGE) == len(OTHER)
    assert await objects.holds("a.jpg", size=len(IMAGE), sha256=sha256) is True
    assert await objects.holds("a.jpg", size=len(IMAGE), sha256=other) is False
    assert await objects.holds("a.jpg", size=1, sha256=sha256) is False
    assert await objects.holds("b.jpg", size=1, sha256=sha256) is None
    assert await _sha256(place, "b.jpg") is None


async def test_the_list_has_every_object_of_the_run_and_no_other(place: Place):
    """Names with spaces and other scripts are as they were given; a neighbour whose name begins
    with the run's is another run."""
    url, options = place
    names = ["a b.png", "füchse/狐.png", "x+y&z=1.png", "deep/er/c.png"]
    objects, neighbour = Objects(url, options), Objects(f"{url}2", options)
    for size, name in enumerate(names):
        assert await objects.create(name, b"x" * size, {})
    assert await neighbour.create("other.png", b"", {})
    found = await asyncio.to_thread(lambda: dict(objects.sizes()))
    assert found == {name: size for size, name in enumerate(names)}
    assert await asyncio.to_thread(lambda: [*neighbour.sizes()]) == [("other.png", 0)]


async def test_a_removed_object_can_be_created_again(place: Place):
    """Removing is what the probe needs."""
    url, options = place
    objects = Objects(url, options)
    assert await objects.create("a", b"first", {})
    await objects.remove("a")
    assert await _names(place) == []
    assert await objects.create("a", b"second", {})
    assert await _sha256(place, "a") == hashlib.sha256(b"second").hexdigest()


async def test_a_bucket_that_does_not_exist_is_said(server: ObjectServer):
    """The error names the mistake and the next step, from every real server."""
    url = f"{server.scheme}://nowhere-{server.name}/run"
    with pytest.raises(SinkError, match=r"no such bucket.*create it, or correct the URL"):
        await ObjectSink(url, options=server.options).__aenter__()
