"""What the log of a run asks of an object store, with each kind of store that runs here."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.object_stores import BUCKET, SmallS3, options_of, small_s3

from fluxasync import SinkError
from fluxasync._store import objects as objects_module
from fluxasync._store.objects import Objects

pytest.importorskip("obstore", reason="the extra `store` is not installed")


def test_an_object_is_created_once(objects: Objects):
    """The second creation is refused and changes nothing."""
    assert objects.create_blocking("log/1", b"one")
    assert not objects.create_blocking("log/1", b"two")
    assert objects.read("log/1") == b"one"
    assert objects.read("log/2") is None


def test_the_names_after_a_name(objects: Objects):
    """The rest of a long list is read without its start, and without other folders."""
    for name in ("log/1", "log/2", "log/3", "log/sealed/1", "logs/4", "x"):
        objects.create_blocking(name, b"")
    assert sorted(objects.names("log")) == ["log/1", "log/2", "log/3", "log/sealed/1"]
    assert sorted(objects.names("log", after="log/1")) == ["log/2", "log/3", "log/sealed/1"]
    assert list(objects.names("nothing/here")) == []


def test_only_the_version_that_was_read_is_replaced(objects: Objects):
    """Of two who read a version, one replaces it."""
    objects.create_blocking("lease", b"first")
    read = objects.version("lease")
    assert read is not None
    assert abs(read.modified_at - datetime.now(UTC)) < timedelta(minutes=1)
    second = objects.replace_if("lease", b"second", read.tag)
    assert second is not None
    assert objects.replace_if("lease", b"another", read.tag) is None
    assert objects.replace_if("lease", b"third", second) is not None
    assert objects.read("lease") == b"third"


def test_what_is_gone_is_not_replaced(objects: Objects):
    """A removed object does not come back."""
    objects.create_blocking("lease", b"first")
    read = objects.version("lease")
    assert read is not None
    assert objects.replace_if("other", b"second", read.tag) is None
    assert objects.read("other") is None


def test_a_creation_without_an_answer_is_tried_again(s3: SmallS3):
    """The caller learns that there is an object now, and compares it with its own."""
    store = Objects(f"s3://{BUCKET}/run", options_of(s3.url))
    s3.drops = 1
    assert not store.create_blocking("log/1", b"one")
    assert s3.objects == {"run/log/1": b"one"}


def test_a_store_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch):
    """The tries end, with the next step."""
    monkeypatch.setattr(objects_module, "_RETRIES", 1)
    monkeypatch.setattr(objects_module, "_RETRY_SECONDS", 1)
    with small_s3() as bucket:
        pass
    store = Objects(f"s3://{BUCKET}/run", options_of(bucket.url))
    with pytest.raises(SinkError, match="check the network and the store"):
        store.create_blocking("log/1", b"one")


def test_plain_http_is_refused_with_the_option_that_allows_it():
    """The library's own words for it, `builder error`, name no next step."""
    options = options_of("http://127.0.0.1:9") | {"allow_http": "false"}
    store = Objects(f"s3://{BUCKET}/run", options)
    with pytest.raises(SinkError, match="--storage-option allow_http=true"):
        store.read("log/1")


def test_plain_http_is_allowed_by_the_environment(s3: SmallS3, monkeypatch: pytest.MonkeyPatch):
    """AWS_ALLOW_HTTP works as the option does, which goes before it."""
    options = options_of(s3.url)
    del options["allow_http"]
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert Objects(f"s3://{BUCKET}/run", options).create_blocking("log/1", b"one")
    with pytest.raises(SinkError, match="plain http is refused"):
        Objects(f"s3://{BUCKET}/run", options | {"allow_http": "false"}).read("log/1")


def test_a_folder_without_room_is_an_error_at_once(tmp_path: Path):
    """A local error is not waited for."""
    store = Objects(f"file://{tmp_path}/run")
    (tmp_path / "run" / "log").write_text("a file in the way")
    with pytest.raises(SinkError, match=str(tmp_path)):
        store.create_blocking("log/1", b"one")


@pytest.mark.asyncio
async def test_a_file_is_on_the_disk_before_it_counts_as_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: obstore does not sync; also one that an earlier try left is synced when it is adopted."""
    synced: list[int] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    objects = Objects(f"file://{tmp_path}/bucket", {})
    for is_new in (True, False):
        synced.clear()
        assert await objects.create("a.jpg", b"whole", {}) is is_new
        places = (tmp_path / "bucket" / "a.jpg", tmp_path / "bucket")
        assert {place.stat().st_ino for place in places} <= {*synced}
