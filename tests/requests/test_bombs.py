"""Small files that decompress to huge ones are refused soon, in little memory.

Each is read in a separate process, which measures its peak memory.
"""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.patience import patient
from support.sample_images import png_chunk
from support.workbooks import (
    SHARED,
    SHEET,
    SPACE,
    changed,
    shared_texts,
    with_shared_texts,
    workbook,
)

#: megabytes that reading may take beyond Python, the library and pyarrow, which alone take 80 to
#: 105 by pyarrow's version
MOST = 70

MEGABYTE = 2**20

READ = """
import asyncio, resource, sys
from pathlib import Path
from fluxasync import ConfigError
from fluxasync._core.images import NotAnImage, inspect
from fluxasync._requests.sources import open_source
from fluxasync import Prompts

async def checked(path, *folder):
    source = open_source(Prompts(path, wildcards=Path(*folder) if folder else False))
    try:
        plan = await source.check()
        return f"{plan.images} images"
    except ConfigError as error:
        return str(error)
    finally:
        await source.aclose()

def judged(path):
    try:
        return str(inspect(path.read_bytes()))
    except NotAnImage as error:
        return str(error)

def peak():
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20
    # not ru_maxrss, which on Linux begins with the memory of the process that started this one
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

path = Path(sys.argv[1])
if path.suffix == ".parquet":
    import pyarrow.parquet
if path.suffix == ".xlsx":
    import openpyxl
before = peak()
message = judged(path) if path.suffix == ".png" else asyncio.run(checked(path, *sys.argv[2:]))
print(peak() - before, message)
"""


def message_of(path: Path, *folder: Path) -> str:
    """Read the file in another process; return its output, checking the peak against the cap."""
    command = [sys.executable, "-c", READ, str(path), *map(str, folder)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=patient(120), check=False
    )
    assert not ended.stderr
    peak, message = ended.stdout.split(" ", 1)
    assert int(peak) <= MOST, f"{peak} MB: {message}"
    return message


def packed(piece: bytes, times: int, *, head: bytes = b"") -> bytes:
    """A .gz of many members, which is made at once."""
    return gzip.compress(head) + gzip.compress(piece, 1) * times


BOMBS = [
    pytest.param("p.txt.gz", lambda: packed(b"a" * MEGABYTE, 1000),
                 "a line of more than 64 MB", id="gz: one line of 1 GB"),
    pytest.param("p.txt.gz", lambda: packed(b"\n" * MEGABYTE, 1000),
                 "holds 1 MB of blank lines in a row", id="gz: 1 GB of blank lines"),
    pytest.param("p.jsonl.gz", lambda: packed(b" \t\r\n" * (MEGABYTE // 4), 1000),
                 "holds 1 MB of blank lines in a row", id="gz: 1 GB of lines of spaces"),
    pytest.param("p.json.gz", lambda: packed(b"\n" * MEGABYTE, 1000, head=b"["),
                 "holds 1 MB of blank lines in a row", id="gz: 1 GB of space in a list"),
    pytest.param("p.json.gz", lambda: packed(b"a" * MEGABYTE, 1000, head=b'["'),
                 "larger than 64 MB, the limit for .json", id="gz: one text of 1 GB in a list"),
    pytest.param("p.json.gz", lambda: packed(b"[" * MEGABYTE, 1000),
                 "larger than 64 MB, the limit for .json", id="gz: 1 billion lists in lists"),
    pytest.param("p.csv.gz", lambda: packed(b"," * MEGABYTE, 1000, head=b"prompt\n"),
                 "a line of more than 64 MB", id="gz: a row of 1 billion cells"),
    pytest.param("p.csv.gz", lambda: packed(b'\n","' * MEGABYTE, 100, head=b'prompt\n"'),
                 "row 2: more than 4 MB; is a double quote never closed?",
                 id="gz: a row of 100 million lines"),
    pytest.param("p.csv", lambda: b'prompt\n"a fox\n' + b"owl\n" * 2_500_000,
                 "row 2: a cell of more than 131,072 characters; is a double quote never closed?",
                 id="csv: a quote that never closes, 10 MB"),
    pytest.param("p.csv", lambda: b",".join(b"c%d" % n for n in range(500_000)) + b"\nfox\n",
                 "a table has 2,000 columns at most", id="csv: 500,000 columns"),
    pytest.param("p.csv", lambda: b",".join(b"c%d" % n for n in range(3_000)) + b"\nfox\n",
                 "3,000 columns; a prompt list has 2,000 at most", id="csv: 3,000 columns"),
    pytest.param("p.csv", lambda: b"prompt\n" + (b"," * 900_000 + b"\n") * 12,
                 "rows 2–13: 900,001 cells", id="csv: rows of a million cells"),
    pytest.param("p.csv", lambda: b"prompt\n" + (b'"' + b"a" * 131_000 + b'"\n') * 900,
                 "900 images", id="csv: 900 rows of 131 KB"),
    pytest.param("p.json", lambda: b"[" + b",".join([b'"' + b"a" * 900_000 + b'"'] * 30) + b"]",
                 "30 images", id="json: 30 texts of 900 KB"),
    pytest.param("p.json", lambda: b"[" * MEGABYTE, "nested too deeply", id="json: 1 MB of ["),
    pytest.param("p.jsonl", lambda: b"oops\n" * 2_000_000,
                 "lines 1–10000: column 1: not JSON", id="jsonl: 2 million bad lines"),
    pytest.param("p.csv", lambda: b"prompt,width\n" + b"a,x\n" * 2_000_000,
                 "rows 2–10001: column 'width'", id="csv: 2 million bad rows"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content", "expected"), BOMBS)
def test_a_list_that_is_a_bomb_ends(
    tmp_path: Path, name: str, content: Callable[[], bytes], expected: str
) -> None:
    """S5: reading ends within seconds and 70 MB, and names the fault; valid lists are read."""
    path = tmp_path / name
    path.write_bytes(content())
    assert expected in message_of(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param(lambda: {"prompt": ["a" * 10**8]}, "a page unpacks to 100 MB",
                     id="a cell of 100 MB"),
        pytest.param(lambda: {"prompt": ["a"] * 999 + ["a" * 20_000_000]},
                     "a page unpacks to 20 MB", id="a cell of 20 MB among small ones"),
        pytest.param(lambda: {"prompt": ["fox"], "note": ["a" * 10**8]}, "column 'note': a page",
                     id="a cell of metadata of 100 MB"),
        pytest.param(lambda: {"prompt": ["fox"], **{f"c{n}": [1] for n in range(20_000)}},
                     "20,001 columns; a prompt list has 2,000 at most", id="20,000 columns"),
        pytest.param(lambda: {"prompt": ["a" * 900_000] * 150}, "150 images",
                     id="a long text in every row"),
        pytest.param(lambda: {"prompt": ["fox"], "tags": [["a" * 900_000] * 100]},
                     "a row of 90.0 MB of text", id="a long text a hundred times in a cell"),
        pytest.param(lambda: {"prompt": ["fox"], "tags": [[1] * 3_000_000]},
                     "column 'tags': lists of more than 1,000 values", id="a list of 3 million"),
    ],
)  # fmt: skip
def test_a_parquet_file_that_is_a_bomb_ends(
    tmp_path: Path, columns: Callable[[], dict[str, Any]], expected: str
) -> None:
    """S5: pages are measured before they are unpacked, and cells before they are Python's."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "p.parquet"
    parquet.write_table(pyarrow.table(columns()), path, compression="zstd")
    assert path.stat().st_size < 10**7
    assert expected in message_of(path)


@pytest.mark.slow
def test_a_parquet_file_with_a_large_footer_is_refused(tmp_path: Path) -> None:
    """S5: Arrow parses a footer whole, into about nine times its size."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "p.parquet"
    table = pyarrow.table({"prompt": ["fox"]}, metadata={"notes": "a" * 2**23})
    parquet.write_table(table, path)  # the notes twice
    assert "MB, more than the 16 MB that are read" in message_of(path)


CELL = b'<c r="A%d" t="inlineStr"><is><t>%s</t></is></c>'
HEAD = b'<row r="1">' + CELL % (1, b"prompt") + b"</row>"
SHEETS: list[Any] = [
    pytest.param(SHEET, lambda: HEAD + b'<row r="2">' + CELL % (2, b"a" * 10**8) + b"</row>",
                 "a row, or what is around rows, of more than 4 MB", id="a cell of 100 MB"),
    pytest.param(SHEET, lambda: HEAD + b'<row r="2">' + b"<c/>" * 10**7 + b"</row>",
                 "a row, or what is around rows, of more than 4 MB", id="10 million cells"),
    pytest.param(SHEET, lambda: HEAD + b"<row></row>" * 30_000_000,
                 "its sheets unpack to 330 MB", id="30 million rows"),
    pytest.param(SHEET, lambda: HEAD + b"".join(b'<row r="%d">' % n + CELL % (n, b"a" * 30_000)
                 + b"</row>" for n in range(2, 3_000)), "2998 images", id="long cells, 90 MB"),
    pytest.param(SHARED, lambda: b"<si><t>a</t></si>" * 5_000_000,
                 "sharedStrings.xml unpacks to 85 MB", id="5 million shared texts"),
    pytest.param(SHARED, lambda: b"".join(b"<si><t>%d</t></si>" % n
                 for n in range(700_000)), "700,002 different texts", id="700,000 shared texts"),
    pytest.param(SHARED, lambda: b"".join(b"<si><t>%d</t></si>" % n for n in range(200_000)),
                 "1 images", id="200,000 shared texts"),
    pytest.param("xl/styles.xml", lambda: b"<x>" * 10_000_000, "styles.xml unpacks to 30 MB",
                 id="styles of 30 MB"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("part", "content", "expected"), SHEETS)
def test_an_xlsx_file_that_is_a_bomb_ends(
    tmp_path: Path, part: str, content: Callable[[], bytes], expected: str
) -> None:
    """S5: sizes are judged by the zip's directory and rows by their length, before they are
    unpacked into cells."""
    pytest.importorskip("openpyxl")
    path = workbook(tmp_path / "p.xlsx", [["prompt"], ["fox"]])
    inside = content()
    if part == SHEET:
        text = f'<worksheet xmlns="{SPACE}"><sheetData>'.encode() + inside
        changed(path, SHEET, lambda _: text + b"</sheetData></worksheet>")
    elif part == SHARED:
        texts = shared_texts(["prompt", "fox"])
        with_shared_texts(path, texts.replace(b"</sst>", inside + b"</sst>"))
    else:
        changed(path, part, lambda _: inside)
    assert expected in message_of(path)


def wild(folder: Path, lists: dict[str, str], prompt: str) -> str:
    for name, content in lists.items():
        (folder / f"{name}.txt").write_text(content)
    (folder / "prompts.txt").write_text(prompt)
    return message_of(folder / "prompts.txt", folder)


WILD = [
    pytest.param({f"l{n}": f"__l{n + 1}__\n" * 20 for n in range(18)} | {"l18": "x\n"}, "a __l0__",
                 "1,000,000,000,000,000 or more images in one row", id="20^18 by lists of lists"),
    pytest.param({}, "{a|b}" * 66_000, "alternatives in one text", id="66,000 choices"),
    pytest.param({}, "{a|b}" * 9_000, "1,000,000,000,000,000 or more images in one row",
                 id="9,000 choices"),
    pytest.param({}, "{" + "|" * 900_000 + "}", "alternatives in one text", id="a place of bars"),
    pytest.param({"l": "a\n" * 4_900_000}, "a __l__", "has more than 100,000 lines",
                 id="a list of 5 million lines"),
    pytest.param({f"l{n}": ("{" + "|" * 9_000 + "}\n") * 9 for n in range(9)},
                 "".join(f"__l{n}__" for n in range(9)), "the lists hold more than 200,000",
                 id="lists of bars"),
    pytest.param({}, "x" * 900_000 + "{" + "|".join(map(str, range(9_000))) + "}",
                 "its prompts are more than 20 million characters", id="9,000 long prompts"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("lists", "prompt", "expected"), WILD)
def test_choices_that_multiply_without_end_are_refused(
    tmp_path: Path, lists: dict[str, str], prompt: str, expected: str
) -> None:
    """S5: they are counted and not made, and lists that nothing could use are not held."""
    assert expected in wild(tmp_path, lists, prompt)


def big_png(width: int, height: int, rows: int) -> bytes:
    """A PNG of 16 bits and four samples whose data has this number of empty rows."""
    packer = zlib.compressobj()
    row = bytes(1 + width * 8)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = png_chunk(b"IHDR", struct.pack(">II5B", width, height, 16, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "rows", "expected"),
    [
        pytest.param((60_000, 60_000), 60, "more than 64 megapixels", id="60 of 60,000 rows"),
        pytest.param((8_000, 8_000), 60, "fewer rows than its header says", id="60 of 8,000 rows"),
        pytest.param((8_000, 8_000), 8_000, "width=8000", id="512 MB of empty rows"),
    ],
)
def test_a_png_is_judged_in_little_memory(
    tmp_path: Path, size: tuple[int, int], rows: int, expected: str
) -> None:
    """F80 T9 Its rows are counted piece by piece, and not kept."""
    (tmp_path / "a.png").write_bytes(big_png(*size, rows))
    assert expected in message_of(tmp_path / "a.png")
