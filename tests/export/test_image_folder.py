"""An hf-folder: its images are those of the run, and a grown or changed run is followed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from support.saved_runs import rows, save_images, tiny

from fluxasync import ConfigError, export

pytestmark = pytest.mark.asyncio


def lines(folder: Path) -> list[dict[str, object]]:
    text = (folder / "metadata.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


async def test_images_are_linked_in_their_folders_and_a_grown_run_adds_some(tmp_path):
    """No second copy on the same disk; metadata.jsonl has one line for each."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 2), name="sub/{:03}.jpg".format)
    made = await export(run, "hf-folder")
    assert made.paths == (tmp_path / "run-hf-folder" / "metadata.jsonl",)
    assert (made.out / "sub" / "001.jpg").samefile(run / "sub" / "001.jpg")
    await save_images(run, rows(2, 3), name="sub/{:03}.jpg".format)
    assert (await export(run, "hf-folder")).images == 3
    assert [line["file_name"] for line in lines(made.out)] == [f"sub/00{n}.jpg" for n in range(3)]


async def test_images_are_copied_where_no_link_can_be(tmp_path, monkeypatch):
    """As from one file system to another."""

    def refuse(*_paths: object, **_options: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    await save_images(tmp_path / "run", rows(0, 2))
    monkeypatch.setattr(os, "link", refuse)
    made = await export(tmp_path / "run", "hf-folder")
    assert (made.out / "000001.jpg").read_bytes() == tiny(1)
    assert not (made.out / "000001.jpg").samefile(tmp_path / "run" / "000001.jpg")
    assert {path.suffix for path in made.out.iterdir()} == {".jpg", ".jsonl"}


async def test_a_folder_of_something_else_is_refused(tmp_path):
    """Another run's export, too: its lines would be lost."""
    await save_images(tmp_path / "a", rows(0, 1))
    await save_images(tmp_path / "b", rows(0, 1))
    made = await export(tmp_path / "a", "hf-folder", out=tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        await export(tmp_path / "b", "hf-folder", out=tmp_path / "out")
    assert len(lines(made.out)) == 1
