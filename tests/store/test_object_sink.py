"""What ObjectSink does where a store misbehaves, and how it is told what to use."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.object_stores import BUCKET, SECRET, SmallS3, options_of, small_s3
from support.sample_images import jpeg, png

from fluxasync import ConfigError, DownloadError, ImageRequest, Job, ObjectSink, SinkError
from fluxasync._core.protocols import Chunks
from fluxasync._store.objects import Objects

pytest.importorskip("obstore", reason="the extra `store` is not installed")

JOB = Job(job_id="7f3a9c21", request=ImageRequest(prompt="a red fox", name="fox"))
IMAGE = jpeg(payload=b"one" * 100)
URL = f"s3://{BUCKET}/run"


async def _chunks(image: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(image), 100):
        yield image[start : start + 100]


async def _stored(sink: ObjectSink, image: bytes = IMAGE, job: Job = JOB):
    return await sink.store(job.request, job, Chunks(_chunks(image), is_paid=True))


def _sink(bucket: SmallS3, **options: object) -> ObjectSink:
    return ObjectSink(URL, options=options_of(bucket.url), template="{name}.{ext}", **options)


@pytest.mark.asyncio
async def test_an_object_says_its_type_and_checksum(s3: SmallS3):
    """The store checks the SHA-256 of the bytes, and keeps it and the content type."""
    async with _sink(s3) as sink:
        stored = await _stored(sink, png(8, 8))
    kept = s3.attributes["run/fox.png"]
    assert kept["content-type"] == "image/png"
    assert kept["x-amz-meta-sha256"] == stored.sha256
    assert "x-amz-checksum-sha256" in kept


@pytest.mark.asyncio
async def test_a_store_that_overwrites_is_refused(s3: SmallS3):
    """A store without conditional creation is found out before an image is paid."""
    s3.honours_conditions = False
    with pytest.raises(SinkError, match=r"overwrites an object.*choose a store"):
        await _sink(s3).__aenter__()
    assert s3.objects == {}


@pytest.mark.usefixtures("few_retries")
@pytest.mark.parametrize(
    ("refusals", "step"),
    [
        pytest.param({"PUT": 403}, "access is refused: check the credentials", id="403"),
        pytest.param({"PUT": 401}, "access is refused: check the credentials", id="401"),
        pytest.param({"PUT": 404}, "no such bucket", id="no bucket"),
        pytest.param({"PUT": 503}, "run the same command again", id="503"),
    ],
)
@pytest.mark.asyncio
async def test_a_refusal_has_a_next_step_and_no_secret(
    s3: SmallS3, refusals: dict[str, int], step: str, caplog: pytest.LogCaptureFixture
):
    """Whatever the store says, the error says what to do, and no option is repeated."""
    caplog.set_level(logging.DEBUG)
    s3.refusals = refusals
    sink = _sink(s3)
    with pytest.raises(SinkError, match=step) as caught:
        await sink.__aenter__()
    assert str(caught.value).startswith(URL)
    for text in (str(caught.value), repr(sink), repr(sink._objects), caplog.text):
        assert SECRET not in text
        assert "AKIAEXAMPLE" not in text


@pytest.mark.usefixtures("few_retries")
@pytest.mark.asyncio
async def test_a_store_that_is_away_is_an_error_of_the_sink():
    """No server answers at the address."""
    with small_s3() as bucket:
        pass
    with pytest.raises(SinkError, match="check the network"):
        await _sink(bucket).__aenter__()


@pytest.mark.asyncio
async def test_a_store_that_asks_to_slow_down_is_tried_again(s3: SmallS3):
    """A few 503 are no error."""
    async with _sink(s3) as sink:
        s3.hiccups = 2
        await _stored(sink)
    assert s3.images() == {"run/fox.jpg": IMAGE}


@pytest.mark.asyncio
async def test_a_put_whose_answer_is_lost_is_not_repeated_under_another_name(s3: SmallS3):
    """The retry finds the object of the first try."""
    async with _sink(s3) as sink:
        s3.losses = 1
        stored = await _stored(sink)
    assert stored.place == f"{URL}/fox.jpg"
    assert s3.images() == {"run/fox.jpg": IMAGE}


@pytest.mark.asyncio
async def test_a_put_whose_connection_breaks_is_tried_again(s3: SmallS3):
    """The object of the first try is adopted, and the run goes on."""
    async with _sink(s3) as sink:
        s3.drops = 2
        stored = await _stored(sink)
    assert s3.drops == 0
    assert stored.place == f"{URL}/fox.jpg"
    assert s3.images() == {"run/fox.jpg": IMAGE}


@pytest.mark.asyncio
async def test_bytes_that_are_no_image_never_reach_the_bucket(s3: SmallS3, tmp_path: Path):
    """They are judged as in a folder, and kept in the quarantine of the run's record."""
    async with _sink(s3, state=tmp_path) as sink:
        with pytest.raises(DownloadError):
            await _stored(sink, IMAGE[:-2])
        kept = await sink.quarantined(JOB)
        assert s3.images() == {}
        assert kept is not None
        assert kept.path == tmp_path / ".fluxasync/quarantine/7f3a9c21.jpg"
        await _stored(sink)
        assert await sink.quarantined(JOB) is None


@pytest.mark.usefixtures("few_retries")
@pytest.mark.asyncio
async def test_a_paid_image_that_the_store_refuses_is_kept(s3: SmallS3, tmp_path: Path):
    """Its URL may have expired when the store works again."""
    async with _sink(s3, state=tmp_path) as sink:
        s3.refusals = {"PUT": 403}
        with pytest.raises(SinkError):
            await _stored(sink)
        kept = await sink.quarantined(JOB)
    assert kept is not None
    assert kept.path is not None
    assert kept.path.read_bytes() == IMAGE


@pytest.mark.asyncio
async def test_an_image_over_the_limit_is_refused(s3: SmallS3):
    """`max_bytes` bounds what is held in memory."""
    async with _sink(s3, max_bytes=len(IMAGE) - 1) as sink:
        with pytest.raises(DownloadError, match="max_image_bytes"):
            await _stored(sink)
    assert s3.images() == {}


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/run", "ftp://host/run", "s3://", "s3:///run", "gs:///", "file://run",
        "file:///", "s3://key:secret@bucket/run", "s3://bucket/run?x=1", "s3://bucket/a/../b",
        "bucket/run", "",
    ],
)  # fmt: skip
def test_a_url_that_names_no_store_is_refused(url: str):
    """The error repeats no password."""
    with pytest.raises(ConfigError) as caught:
        ObjectSink(url)
    assert "secret" not in str(caught.value)


def test_an_unknown_option_is_refused_without_its_value():
    """Options are checked when the sink is made."""
    with pytest.raises(ConfigError, match="regoin") as caught:
        ObjectSink("s3://bucket/run", options={"regoin": SECRET})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("http2_max_frame_size", "16384"), ("read_timeout", "10s"), ("default_content_type", "a/b")],
)
def test_an_option_of_the_client_is_taken_too(name: str, value: str):
    """obstore panics where one is given to it as an option of the store."""
    ObjectSink("s3://bucket/run", options={name: value})


def test_a_value_that_a_store_cannot_read_is_not_repeated():
    """A secret that was given as another option stays one."""
    with pytest.raises(ConfigError, match="parse") as caught:
        ObjectSink("s3://bucket/run", options={"skip_signature": SECRET})
    assert SECRET not in str(caught.value)


@pytest.mark.asyncio
async def test_a_lost_answer_to_the_probe_is_no_overwriting(s3: SmallS3):
    """The store's own retry finds the probe of its first try."""
    s3.losses, s3.loses_probes = 1, True
    async with _sink(s3) as sink:
        await _stored(sink)
    assert s3.images() == {"run/fox.jpg": IMAGE}


@pytest.mark.asyncio
async def test_a_sink_that_is_not_open_is_refused():
    """As a folder's is, before an image is paid."""
    with pytest.raises(ConfigError, match="async with ObjectSink"):
        ObjectSink("memory://bucket/run").check_open("to")


def test_a_local_store_is_the_folder_of_its_url(tmp_path: Path):
    """file:// is a folder as obstore writes it."""
    Objects(f"file://{tmp_path}/run")
    (tmp_path / "run" / "a b#.png").write_bytes(b"x")
    assert list(Objects(f"file://{tmp_path}/run").sizes()) == [("a b#.png", 1)]
