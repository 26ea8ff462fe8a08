"""Recognises files that are plainly no list of prompts by their first bytes, and says what to do.

A download that was a login page, a pointer of Git LFS or an archive under the name of a text is
refused before its lines become prompts.
"""

from __future__ import annotations

import re

from attrs import frozen

from ..._core.errors import ConfigError

#: bytes that are looked at
HEAD = 4_096

#: bytes that text has rarely, and how many, and which share, make a file no text
_CONTROL = [bytes((code,)) for code in range(32) if code not in b"\t\n\r\f\x1b"]
_CONTROL_LEAST, _CONTROL_SHARE = 40, 0.1

_DOWNLOAD = "open its address in a browser, log in, and download the file itself"
_UNPACK = "unpack it and name the list inside"


@frozen
class FileKind:
    """A kind of file, how it begins, and what to do."""

    what: str
    begins: re.Pattern[bytes]
    advice: str


def _kind(what: str, begins: bytes, advice: str) -> FileKind:
    return FileKind(what, re.compile(begins, re.IGNORECASE | re.DOTALL), advice)


#: text that stands for a file that was not fetched
_PLACEHOLDERS = (
    # git-lfs.com/spec: the first line is always the version
    _kind(
        "a pointer of Git LFS, not the file",
        rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/spec/v\d",
        "run: git lfs pull",
    ),
    _kind(
        "a pointer of git-annex, not the file",
        rb"(\.\./)*(/annex/objects/|\.git/annex/objects/)[^\r\n]+\s*$",
        "run: git annex get",
    ),
    _kind("a pointer of DVC, not the file", rb"outs:\s*\n- (md5|etag|hash): ", "run: dvc pull"),
    _kind(
        "a web page",
        rb"\s*(<\?xml[^>]*>\s*)?(<!--.{0,500}?-->\s*)?"
        rb"<(!doctype html|html|head|body|script|style|meta|title|div|h\d)[\s>]",
        _DOWNLOAD,
    ),
    _kind(
        "an error message of a storage service",
        rb"\s*(<\?xml[^>]*>\s*)?<Error>.{0,200}<Code>",
        "check the address and your access rights, and download the file again",
    ),
    _kind(
        "an error message of a server",
        rb'\s*("?(4\d\d|5\d\d)[: ]+(not found|forbidden|unauthorized|bad request|too many requests'
        rb"|internal server error|bad gateway|service unavailable|gateway time-?out)\.?\"?\s*$"
        rb"|(not found|access denied|forbidden|entry not found|repository not found)\.?\s*$"
        rb'|\{\s*"(error|message|detail)"\s*:\s*"[^"]*(not found|denied|unauthorized|forbidden'
        rb'|rate limit|credentials|expired|invalid username)[^"]*"[^{}]*\}\s*$)',
        "check its address and your access rights, and download it again",
    ),
    _kind("a document of XML", rb"\s*<\?xml\s", "convert it to .txt, .jsonl or .csv"),
    _kind("a document in RTF", rb"\{\\rtf\d", "save it as plain text in UTF-8"),
)

_BINARY = (
    _kind("a PDF", rb"%PDF-", "copy its text into a .txt"),
    _kind("a document of Word", rb"PK\x03\x04.{0,3000}word/", "save it as plain text in UTF-8"),
    _kind("an Excel file", rb"PK\x03\x04.{0,3000}xl/", 'save it as "CSV UTF-8", or name it .xlsx'),
    _kind("a zip archive", rb"PK(\x03\x04|\x05\x06)", _UNPACK),
    _kind(
        "an old document of Word or Excel",
        rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "save it as plain text or CSV in UTF-8",
    ),
    _kind("packed by gzip", rb"\x1f\x8b", "name it .gz at the end, as prompts.txt.gz"),
    _kind("packed by bzip2", rb"BZh\d1AY", _UNPACK),
    _kind("packed by xz", rb"\xfd7zXZ\x00", _UNPACK),
    _kind("packed by Zstandard", rb"\x28\xb5\x2f\xfd", _UNPACK),
    _kind("a 7z archive", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    _kind("a RAR archive", rb"Rar!\x1a\x07", _UNPACK),
    _kind("a tar archive", rb".{257}ustar", _UNPACK),
    _kind("an SQLite database", rb"SQLite format 3\x00", "export the table as CSV"),
    _kind("a Parquet file", rb"PAR1", "name it .parquet"),
    _kind("an Arrow file", rb"ARROW1", "write it as .parquet"),
    _kind("a NumPy file", rb"\x93NUMPY", "write it as .jsonl or .csv"),
    _kind("a picture", rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP", "name a list"),
)


def refuse_other_kinds(head: bytes, *, name: str) -> None:
    """Raise ConfigError for a text list that begins like another kind of file."""
    head = head[:HEAD].removeprefix(b"\xef\xbb\xbf")
    for kind in (*_PLACEHOLDERS, *_BINARY):
        if kind.begins.match(head):
            raise ConfigError(f"{name} is {kind.what}, and no list of prompts; {kind.advice}")
    control = sum(head.count(byte) for byte in _CONTROL)
    if control > _CONTROL_LEAST and control > len(head) * _CONTROL_SHARE:
        raise ConfigError(
            f"{name} is no text ({control} of its first {len(head):,} bytes are control "
            "characters), and no list of prompts; name a list in UTF-8"
        )


def refuse_placeholder(head: bytes, *, name: str) -> None:
    """Raise ConfigError for text under the name of a binary format, such as .parquet."""
    for kind in _PLACEHOLDERS:
        if kind.begins.match(head[:HEAD]):
            raise ConfigError(f"{name} is {kind.what}; {kind.advice}")
