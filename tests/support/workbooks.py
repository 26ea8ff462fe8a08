"""Makes .xlsx files, and changes parts of them as other programs and attackers write them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

SPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SHEET, SHARED = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"
_SHARED_TYPE = (
    f'<Override PartName="/{SHARED}" ContentType="application/vnd.openxmlformats-officedocument.'
    'spreadsheetml.sharedStrings+xml"/></Types>'
)


def workbook(path: Path, *sheets: Sequence[Sequence[Any]], titles: Sequence[str] = ()) -> Path:
    """Write sheets of rows."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for place, rows in enumerate(sheets):
        sheet = book.create_sheet(titles[place] if titles else f"Sheet{place + 1}")
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def changed(path: Path, part: str, change: Callable[[bytes], bytes]) -> Path:
    """Write a workbook again with one part changed by a function."""
    kept = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, change(content) if info.filename == part else content)
    path.write_bytes(kept.getvalue())
    return path


def shared_texts(texts: Sequence[str]) -> bytes:
    """Return the part of a workbook that holds texts once for all cells."""
    inside = "".join(f"<si><t>{escape(text)}</t></si>" for text in texts)
    return f'<sst xmlns="{SPACE}">{inside}</sst>'.encode()


def with_shared_texts(path: Path, part: bytes) -> Path:
    """Make the first column of the first sheet refer to shared texts, as Excel writes it."""
    changed(
        path, "[Content_Types].xml", lambda old: old.replace(b"</Types>", _SHARED_TYPE.encode())
    )
    with zipfile.ZipFile(path) as old:
        rows = old.read(SHEET).count(b"<row ")
    cells = "".join(
        f'<row r="{n + 1}"><c r="A{n + 1}" t="s"><v>{n}</v></c></row>' for n in range(rows)
    )
    sheet = f'<worksheet xmlns="{SPACE}"><sheetData>{cells}</sheetData></worksheet>'.encode()
    changed(path, SHEET, lambda _: sheet)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        new.writestr(SHARED, part)
    return path
