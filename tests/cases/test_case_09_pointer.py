"""Case 9: a file that is plainly no list of prompts is named as what it is, before it costs.

Members of the kind: a pointer of Git LFS (benedekrozemberczki/datasets#10,
aboutcode-org/scancode-toolkit#4158, git-lfs/git-lfs#4240), of git-annex and DVC, a web page instead
of a .csv or .json (IATI/ckanext-iati#370, wesm/pydata-book#42), a page above the data
(konklone/json#132), a login page packed as .tar (mttgdd/RobotCarDataset-Scraper#5), errors of
storage services, archives, office files and databases under the name of a text.
"""

from __future__ import annotations

import gzip
import io
import os
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.prompt_lists import complaint_of, requests_of, rows_of, saved

from fluxasync import BadRow, ConfigError
from fluxasync._requests.sources.wildcards import Wildcards

DATA = Path(__file__).parent / "data"
POINTER = (DATA / "pointer.txt").read_bytes()


def zipped(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(name, "x")
    return held.getvalue()


def database(folder: Path) -> bytes:
    with closing(sqlite3.connect(folder / "a.db")) as table:
        table.execute("CREATE TABLE prompt (text)")
    return (folder / "a.db").read_bytes()


OTHERS: dict[str, tuple[bytes, str]] = {
    "LFS": (POINTER, "git lfs pull"),
    "LFS with CRLF and a mark": (b"\xef\xbb\xbf" + POINTER.replace(b"\n", b"\r\n"), "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s48--0a1b.txt\n", "git annex get"),
    "DVC": (b"outs:\n- md5: a304\n  size: 14\n  path: p.txt\n", "dvc pull"),
    "page": (b"<!DOCTYPE html>\n<html><title>Log in</title></html>", "a web page"),
    "page after a comment": (b"\n <!-- saved from x -->\n<HTML lang=en>", "a web page"),
    "error of a page": (b'<div id="x">\n<h4>A PHP Error</h4>\n</div>[{"a": 1}]', "a web page"),
    "S3": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "storage service"),
    "404": (b"404: Not Found", "error message of a server"),
    "hub": (b"Entry not found", "error message of a server"),
    "JSON error": (b'{"error": "Repository not found"}\n', "error message of a server"),
    "RTF": (b"{\\rtf1\\ansi a cat}", "RTF"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF"),
    "Word": (zipped("word/document.xml"), "Word"),
    "Excel": (zipped("xl/workbook.xml"), "Excel"),
    "zip": (zipped("prompts.txt"), "unpack it"),
    "gzip": (gzip.compress(b"a cat\n"), "name it .gz"),
    "old Word": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "Word or Excel"),
    "Parquet": (b"PAR1" + bytes(range(64)), "name it .parquet"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "a picture"),
    "other bytes": (bytes(range(20)) * 40, "is no text"),
}  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize(("content", "said"), OTHERS.values(), ids=OTHERS)
async def test_a_file_that_is_no_list_is_named_as_what_it_is(
    tmp_path: Path, content: bytes, said: str, suffix: str
) -> None:
    """Case 9: whatever the name of the file says, the error has its kind and the next step."""
    message = await complaint_of(saved(tmp_path, f"prompts{suffix}", content))
    assert said in message
    assert message.startswith(f"prompts{suffix} is ")
    assert len(message) < 250


@pytest.mark.asyncio
async def test_a_database_is_no_list(tmp_path: Path) -> None:
    """Case 9: an SQLite file named .txt says to export its table."""
    message = await complaint_of(saved(tmp_path, "p.txt", database(tmp_path)))
    assert "an SQLite database" in message
    assert "export the table as CSV" in message


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["shard.parquet", "prompts.jsonl.gz", "prompts.txt.gz"])
async def test_a_pointer_under_the_name_of_a_binary_format_is_named(
    tmp_path: Path, name: str
) -> None:
    """Case 9: a clone without LFS leaves pointers of .parquet and .gz files too."""
    message = await complaint_of(saved(tmp_path, name, POINTER))
    assert f"{name} is a pointer of Git LFS" in message
    assert "git lfs pull" in message


@pytest.mark.asyncio
async def test_a_pointer_among_captions_is_the_bad_row(tmp_path: Path) -> None:
    """Case 9: in a folder of .txt files only that file is refused."""
    saved(tmp_path, "1.txt", "a cat")
    saved(tmp_path, "2.txt", POINTER)
    rows = await rows_of(tmp_path, skip_bad=True)
    [bad] = [row for row in rows if isinstance(row, BadRow)]
    assert len(rows) == 2
    assert bad.where.endswith("/2.txt")
    assert "git lfs pull" in str(bad.error)


@pytest.mark.asyncio
async def test_a_pointer_on_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 9: a piped pointer is what the file of it is."""
    given = piped(POINTER, monkeypatch)
    with pytest.raises(ConfigError, match="standard input is a pointer of Git LFS"):
        await rows_of("-")
    given.close()


def test_a_wildcard_list_that_is_a_pointer_is_refused(tmp_path: Path) -> None:
    """Case 9: lists of --wildcards are cloned too."""
    saved(tmp_path, "animals.txt", POINTER)
    with pytest.raises(ConfigError, match=r"animals\.txt is a pointer of Git LFS"):
        Wildcards(tmp_path).template("a __animals__")


@pytest.mark.asyncio
async def test_prompts_about_such_files_are_prompts(tmp_path: Path) -> None:
    """Case 9: only the beginning of a whole file counts, not what a prompt is about."""
    prompts = [
        "a poster that says 404: Not Found", "version 2 of the bridge", "PKs and %PDF icons",
        "<a fox>", "not found in nature: a blue rose", "a page of html, <html> in neon",
    ]  # fmt: skip
    path = saved(tmp_path, "p.txt", "\n".join(prompts))
    assert prompts == [request.prompt for request in await requests_of(path)]


def piped(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Any:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    given = os.fdopen(reader)
    monkeypatch.setattr("sys.stdin", given)
    return given
