"""The lists beside the images: one line per outcome, readable as an image folder."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from support.sample_images import png

from fluxasync import (
    ConfigError,
    Failed,
    ImageInput,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    Moderated,
    Saved,
    SinkError,
    TransportError,
)
from fluxasync._store.metadata import MetadataWriter, failure_row, metadata_row
from fluxasync._store.output_root import OutputRoot
from fluxasync.extend import Stored

SECRET = "canary-7f3a"


def _request(**fields: object) -> ImageRequest:
    return ImageRequest(**{"prompt": "a red fox", "model": "flux-dev", **fields})  # type: ignore[arg-type]


def _saved(folder: Path, index: int = 0, **fields: object) -> Saved:
    request = _request(index=index, **fields)
    stored = Stored(
        path=folder / f"{index:06}.png", size=123, sha256="ab" * 32, format="png", width=8, height=6
    )
    return Saved(
        request=request,
        job=Job(job_id=f"job-{index}", request=request, provider="cometapi"),
        stored=stored,
        index=index,
        seed=7,
        prompt="a red fox",
        cost=Decimal("0.02"),
        timings={"submit": 0.5, "polls": 3},
        finished_at=datetime(2026, 5, 1, 12, tzinfo=UTC),
    )


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_metadata_line_has_every_column_in_order(tmp_path):
    """The columns are in this order, with JSON's own types."""
    saved = _saved(tmp_path, width=1024, extras={"style": "ink"})
    assert {
        "file_name": "000000.png",
        "prompt": "a red fox",
        "model": "flux-dev",
        "seed": 7,
        "parameters": {"width": 1024},
        "job_id": "job-0",
        "width": 8,
        "height": 6,
        "format": "png",
        "bytes": 123,
        "sha256": "ab" * 32,
        "cost": 0.02,
        "timings": {"submit": 0.5, "polls": 3},
        "index": 0,
        "key": saved.request.key,
        "finished_at": "2026-05-01T12:00:00+00:00",
        "provider": "cometapi",
        "prompt_used": None,
        "extras": {"style": "ink"},
    } == metadata_row(saved, OutputRoot(tmp_path))
    assert next(iter(metadata_row(saved, OutputRoot(tmp_path)))) == "file_name"


def test_image_inputs_and_secrets_stay_out(tmp_path):
    """P22 A list may be shared: it has digests and URLs, no base64 and no secret."""
    saved = _saved(
        tmp_path,
        image_prompt=b"image bytes",
        parameters={
            "input_image": ImageInput.of("https://example.org/fox.png"),
            "input_image_2": "QUJD" * 9_000,
            "mask": b"image bytes",
        },
        webhook_url=f"https://example.org/{SECRET}",
        webhook_secret=SECRET,
    )
    row = metadata_row(saved, OutputRoot(tmp_path))
    digest = ImageInput.of(b"image bytes").identity
    assert digest == row["parameters"]["image_prompt"] == row["parameters"]["mask"]
    assert row["parameters"]["input_image"] == "url:https://example.org/fox.png"
    assert row["parameters"]["input_image_2"].startswith("sha256:")
    assert SECRET not in json.dumps(row)


def test_a_job_without_a_request_has_the_same_columns(tmp_path):
    """An image collected by its job id alone is listed too."""
    known = _saved(tmp_path)
    bare = Saved(request=None, job=Job(job_id="x"), stored=known.stored, prompt="as it was")
    row = metadata_row(bare, OutputRoot(tmp_path))
    assert list(metadata_row(known, OutputRoot(tmp_path))) == list(row)
    assert (row["prompt"], row["prompt_used"], row["extras"]) == (None, "as it was", {})


def test_a_failure_line_has_cause_and_cost():
    """Programs and people can distinguish refused, moderated and unanswered images."""
    job = Job(job_id="job-1", polling_url="https://api.example/x", price=Decimal("0.04"))
    unread = _request(image_prompt="missing.png", index=4, extras={"style": "ink"})
    outcomes = (
        Failed(request=_request(), error=InvalidRequest("too wide", status=422)),
        Failed(request=_request(), error=Moderated("by the filter", job=job), job=job, index=1),
        InDoubt(
            request=_request(), error=TransportError("cut", sent=True), index=2, price=Decimal("1")
        ),
        Failed(request=None, error=ConfigError("bad JSON"), where="p.jsonl line 4", index=3),
        Failed(request=unread, error=ConfigError("no such file"), index=4),
    )
    rows = [failure_row(outcome) for outcome in outcomes]
    facts = [(r["cause"], r["paid"], r["price"], r["job_id"], r["where"]) for r in rows]
    assert facts == [
        ("rejected", "no", None, None, None),
        ("moderated", "unknown", 0.04, "job-1", None),
        ("in-doubt", "unknown", 1.0, None, None),
        ("invalid", "no", None, None, "p.jsonl line 4"),
        ("invalid", "no", None, None, None),
    ]
    assert (
        rows[1]["message"],
        rows[1]["polling_url"],
    ) == ("by the filter", "https://api.example/x")
    assert (rows[4]["key"], rows[4]["extras"]) == (None, {"style": "ink"})
    assert len({tuple(row) for row in rows}) == 1


ODD = {
    "half pair": "\ud83d",
    "line separator": "a\u2028b\x85c\nd",
    "emoji": "🦊",
    "nan": float("nan"),
    "infinite": [Decimal("Infinity"), float("-inf")],
    "path": Path("/x"),
    "bytes": b"\xff",
    3: {"deep": (1, None, True)},
    "set": {1},
}


@pytest.mark.asyncio
async def test_every_line_is_strict_json(tmp_path):
    """T8 F25 Any text and any value make one valid UTF-8 line."""
    async with MetadataWriter(tmp_path) as manifest:
        await manifest.add(_saved(tmp_path, prompt="half \ud83d, sep \u2028 end", extras=ODD))
    text = (tmp_path / "metadata.jsonl").read_bytes()
    assert text.count(b"\n") == 1
    row = json.loads(text.decode(), parse_constant=pytest.fail)
    assert row["prompt"] == "half \\ud83d, sep \u2028 end"
    extras = row["extras"]
    assert (
        extras["half pair"],
        extras["emoji"],
        extras["nan"],
        extras["infinite"],
    ) == ("\\ud83d", "🦊", None, [None, None])
    assert extras["3"] == {"deep": ["1", None, "true"]}  # one type in a list, as Arrow needs it


@pytest.mark.asyncio
async def test_the_folder_is_an_image_folder(tmp_path):
    """datasets docs: metadata.jsonl beside the images, relative file_name, the same keys."""
    async with MetadataWriter(tmp_path) as manifest:
        for index in range(3):
            saved = _saved(tmp_path, index, extras={"style": "ink"} if index else {})
            saved.path.write_bytes(png())
            await manifest.add(saved)
    rows = _rows(tmp_path / "metadata.jsonl")
    assert len({tuple(row) for row in rows}) == 1
    assert all((tmp_path / row["file_name"]).is_file() for row in rows)
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["metadata.jsonl"]


@pytest.mark.asyncio
async def test_the_datasets_library_reads_the_folder(tmp_path):
    """The folder of a run is a data set."""
    datasets = pytest.importorskip("datasets")
    async with MetadataWriter(tmp_path) as manifest:
        for index in range(3):
            saved = _saved(tmp_path, index)
            saved.path.write_bytes(png())
            await manifest.add(saved)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    assert loaded["prompt"][:] == ["a red fox"] * 3


def test_a_file_in_a_subfolder_is_named_from_the_manifests_folder(tmp_path, monkeypatch):
    """Relative and absolute paths give one relative name with forward slashes."""
    monkeypatch.chdir(tmp_path)
    saved = _saved(Path("images/day one"))
    assert metadata_row(saved, OutputRoot(tmp_path / "images"))["file_name"] == "day one/000000.png"


@pytest.mark.asyncio
async def test_a_line_is_in_the_file_when_add_returns(tmp_path):
    """The lists can be read during the run."""
    async with MetadataWriter(tmp_path) as manifest:
        await manifest.add(_saved(tmp_path, 1))
        await manifest.add(Failed(request=_request(), error=ConfigError("no"), index=2))
        assert [row["index"] for row in _rows(tmp_path / "metadata.jsonl")] == [1]
        assert [row["index"] for row in _rows(tmp_path / "failures.jsonl")] == [2]


@pytest.mark.asyncio
async def test_lines_that_come_together_are_written_together(tmp_path, monkeypatch):
    """Hundreds of outcomes at once need few writes, and no line is lost or torn."""
    writes = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda *args: writes.append(args) or real(*args))
    async with MetadataWriter(tmp_path) as manifest:
        await asyncio.gather(*(manifest.add(_saved(tmp_path, index)) for index in range(300)))
    assert list(range(300)) == [row["index"] for row in _rows(tmp_path / "metadata.jsonl")]
    assert len(writes) < 30


@pytest.mark.asyncio
async def test_a_cancelled_add_still_writes_its_line(tmp_path):
    """The image exists, so its line is written; the next caller is not affected."""
    async with MetadataWriter(tmp_path) as manifest:
        adding = asyncio.create_task(manifest.add(_saved(tmp_path, 1)))
        await asyncio.sleep(0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        await manifest.add(_saved(tmp_path, 2))
    assert [row["index"] for row in _rows(tmp_path / "metadata.jsonl")] == [1, 2]


@pytest.mark.asyncio
async def test_a_full_disk_breaks_the_manifest_for_good(tmp_path):
    """F101 F103 After half a line nothing is appended: it would be lost with it."""
    async with MetadataWriter(tmp_path) as manifest:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(SinkError, match=r"metadata\.jsonl.*ulimit -f"):
                await manifest.add(_saved(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(SinkError, match=r"metadata\.jsonl"):
            await manifest.add(_saved(tmp_path))
    assert (tmp_path / "metadata.jsonl").stat().st_size == 100


@pytest.mark.asyncio
async def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    """Two runs in one folder would mix; the message gives the size of the first one."""
    (tmp_path / "metadata.jsonl").touch()
    async with MetadataWriter(tmp_path) as manifest:  # an empty list is no run
        await manifest.add(_saved(tmp_path, 0))
        await manifest.add(_saved(tmp_path, 1))
    with pytest.raises(SinkError, match=r"already holds a run \(2 images\).*another folder"):
        async with MetadataWriter(tmp_path):
            pass
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "failures.jsonl").write_text("{}\n")
    with pytest.raises(SinkError, match=r"\(0 images\)"):
        async with MetadataWriter(tmp_path):
            pass


@pytest.mark.asyncio
async def test_lists_are_not_written_through_a_planted_link(tmp_path):
    """F109 A link with a list's name is refused, wherever it leads."""
    (tmp_path / "metadata.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SinkError):
        async with MetadataWriter(tmp_path) as manifest:
            await manifest.add(_saved(tmp_path))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.asyncio
async def test_a_missing_folder_is_named(tmp_path):
    """F105 The error names the list that could not be written, and the next step."""
    with pytest.raises(SinkError, match=r"metadata\.jsonl: the folder was moved or removed"):
        async with MetadataWriter(tmp_path / "missing") as manifest:
            await manifest.add(_saved(tmp_path))
