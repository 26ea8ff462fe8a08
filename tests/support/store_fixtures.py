"""Fixtures: the object stores that tests share, for a module at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fluxasync._store.objects as objects_module
from fluxasync._store.objects import Objects
from support.object_servers import SERVERS, ObjectServer
from support.object_stores import SmallS3, small_s3

#: real servers; those that take seconds to start are left out of `make quick`
REAL = [
    "moto",
    pytest.param("seaweedfs", marks=pytest.mark.slow),
    pytest.param("azurite", marks=pytest.mark.slow),
]


def _running(name: str, folders: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    pytest.importorskip("obstore", reason="the extra `store` is not installed")
    with SERVERS[name](folders.mktemp(name)) as server:
        yield server


def skip_on_moto(request: pytest.FixtureRequest) -> None:
    """Skip a test of creators that race: there moto lets more than one of them win."""
    if "moto" in request.node.callspec.id:
        pytest.skip("moto looks for an object and writes it in two steps")


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    yield from _running("moto", tmp_path_factory)


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    yield from _running("seaweedfs", tmp_path_factory)


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    yield from _running("azurite", tmp_path_factory)


@pytest.fixture
def s3() -> Iterator[SmallS3]:
    """A small S3 that misbehaves on request."""
    with small_s3() as bucket:
        yield bucket


@pytest.fixture
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal comes at once: how long a store is tried is its own affair."""
    monkeypatch.setattr(objects_module, "_RETRIES", 1)
    monkeypatch.setattr(objects_module, "_RETRY_SECONDS", 1)


@pytest.fixture(params=REAL)
def server(request: pytest.FixtureRequest) -> ObjectServer:
    """Each real server in turn."""
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["memory", "file", *REAL])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A URL of each kind of store, and its options; each test has its own folder."""
    match request.param:
        case "memory":
            return f"memory://{tmp_path.name}/run", {}
        case "file":
            return f"file://{tmp_path}/made/here", {}
    server: ObjectServer = request.getfixturevalue(request.param)
    return server.url(tmp_path.name), server.options


@pytest.fixture
def objects(place: tuple[str, dict[str, str]]) -> Objects:
    """An empty place in each kind of store."""
    return Objects(*place)
