"""Case 16: images as everybody's request bodies have them, and messages without their megabytes.

Other members of the kind: a data URI taken for a file name (sdsykes/fastimage#97,
pqzx/html2docx#28, Brooooooklyn/canvas#1088 with application/octet-stream), a whole image in an
error message or a log (BerriAI/litellm#34783, remotion-dev/remotion#7049), a long data URI that is
refused (openai/openai-python#3551), base64 for Flux (black-forest-labs/flux#471).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from support.echo_server import echo_server
from support.prompt_lists import complaint_of, plan_of, requests_of
from support.sample_images import jpeg, png, webp
from support.simulator_sessions import fast_session, outcomes_of, rows

from fluxasync import Batch, ConfigError, Failed, ImageRequest, Prompts
from fluxasync._core.errors import cut_values
from fluxasync._core.models import ImageInput
from fluxasync._requests.image_inputs import encode_image_inputs

DATA = Path(__file__).parent / "data"
FOX = jpeg(64, 64, payload=os.urandom(3_000))
TEXT = base64.b64encode(FOX).decode()
URL_SAFE = base64.urlsafe_b64encode(FOX).decode()
LINES = base64.encodebytes(FOX).decode()
URI = f"data:image/jpeg;base64,{TEXT}"

FORMS = [
    pytest.param(TEXT, id="base64"),
    pytest.param(URL_SAFE, id="URL-safe"),
    pytest.param(TEXT.rstrip("="), id="without padding"),
    pytest.param(LINES, id="in lines"),
    pytest.param(LINES.replace("\n", "\r\n"), id="in lines of CRLF"),
    pytest.param(f"  {TEXT}\n", id="space around"),
    pytest.param(URI, id="data URI"),
    pytest.param(f"DATA:IMAGE/JPEG;BASE64,{TEXT}", id="data URI in capitals"),
    pytest.param(f"data:image/jpg;charset=utf-8;base64,{TEXT}", id="data URI with a charset"),
    pytest.param(f"data:image/jpeg;base64,{quote(TEXT, safe='')}", id="percent-encoded data URI"),
    pytest.param(f"data:image/jpeg;base64,{URL_SAFE.rstrip('=')}", id="URL-safe data URI"),
    pytest.param(f"data:image/jpeg;base64, {LINES}", id="data URI in lines"),
    pytest.param(f"data:image/jpeg,{quote(FOX)}", id="data URI without base64"),
    pytest.param(f"data:application/octet-stream;base64,{TEXT}", id="octet-stream"),
    pytest.param(f"data:;base64,{TEXT}", id="data URI without a type"),
    pytest.param(FOX, id="bytes"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_is_the_same_image_as_its_file(tmp_path: Path, form: Any) -> None:
    """The key is that of the content, and the wire has plain base64, from a dict and a request."""
    file = tmp_path / "fox.jpg"
    file.write_bytes(FOX)
    row = {"prompt": "at night", "model": "flux-kontext-pro", "input_image": form}
    typed = ImageRequest(
        prompt="at night", model="flux-kontext-pro", parameters={"input_image": form}
    )
    found = await requests_of([row, typed, row | {"input_image": file}])
    assert len({request.content_key for request in found}) == 1
    for request in found[:2]:
        assert await encode_image_inputs(request) == {"input_image": TEXT}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("flux-kontext-pro", "input_image"),
        ("flux-pro-1.1", "image_prompt"),
        ("flux-pro-1.0-fill", "image"),
        ("flux-pro-1.0-fill", "mask"),
        ("flux-pro-1.0-canny", "control_image"),
    ],
)
async def test_every_image_field_of_a_list_takes_base64(
    tmp_path: Path, model: str, name: str
) -> None:
    """A row of .jsonl and of .csv, and a value for all rows."""
    row = {"prompt": "at night", "model": model, name: TEXT}
    if name == "mask":
        row["image"] = TEXT
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "rows.csv").write_text(",".join(row) + "\n" + ",".join(row.values()))
    keys = {
        request.content_key
        for source in (tmp_path / "rows.jsonl", tmp_path / "rows.csv", [row])
        for request in await requests_of(source)
    }
    rest = {key: value for key, value in row.items() if key != name}
    keys |= {request.content_key for request in await requests_of([rest], parameters={name: TEXT})}
    assert len(keys) == 1


def files_with(folder: Path, text: str) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if text.encode() in file.read_bytes()]


@pytest.mark.asyncio
async def test_the_file_of_the_case_is_run_and_its_bytes_are_kept_nowhere(tmp_path: Path) -> None:
    """Case 16: the image reaches the wire; journal, lists and page have its digest."""
    out = tmp_path / "out"
    async with (
        echo_server() as server,
        fast_session(server.url) as flux,
        Batch(flux, DATA / "base64.jsonl", out=out) as batch,
    ):
        [saved] = await outcomes_of(batch)
    [(_, body)] = server.submitted
    sent = json.loads((DATA / "base64.jsonl").read_text())["input_image"]
    assert body["input_image"] == sent
    assert not files_with(out, sent[100:200])
    [line] = rows(out / "metadata.jsonl")
    assert re.fullmatch("sha256:[0-9a-f]{64}", line["parameters"]["input_image"])
    assert len(repr(saved)) < 5_000


@pytest.mark.asyncio
async def test_a_short_text_is_a_file_also_if_it_could_be_base64(tmp_path: Path) -> None:
    """`abcd` and a name that begins like a JPEG in base64 are files; so are names with a dot."""
    for name in ("abcd", "_9j_4AAQ", "iVBORw0KGgo", "R0lGOD" + "a" * 200 + ".jpg"):
        (tmp_path / name).write_bytes(FOX)
        (tmp_path / "rows.jsonl").write_text(
            json.dumps({"prompt": "x", "model": "flux-kontext-pro", "input_image": name})
        )
        [request] = await requests_of(tmp_path / "rows.jsonl")
        assert request.parameters["input_image"].path is not None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(f"data:text/plain;base64,{TEXT}", "a data URI of text/plain", id="text"),
        pytest.param("data:application/pdf;base64,JVBERi0=", "of application/pdf", id="PDF"),
        pytest.param("data:image/png;base64", "a comma before its data", id="no comma"),
        pytest.param("data:image/png;base64,", "the data URI is empty", id="empty"),
        pytest.param("data:image/png;base64,%%%", "holds no base64", id="not base64"),
        pytest.param(f"data:image/jpeg;base64,{TEXT[:4001]}", "cut off", id="cut off"),
        pytest.param("x. y" * 3_000, "neither a path nor base64", id="a long text"),
        pytest.param(TEXT[:4001], "the base64 is cut off", id="base64 that is cut off"),
        pytest.param("data:image/svg+xml,<svg/>", "an SVG file", id="SVG"),
    ],
)
async def test_a_text_that_holds_no_image_is_refused(text: str, reason: str) -> None:
    """The reason and the field are named, and at most 120 characters of the text."""
    row = {"prompt": "at night", "model": "flux-kontext-pro", "input_image": text}
    complaint = await complaint_of([row])
    assert complaint.startswith("item 1: input_image: ")
    assert reason in complaint
    assert len(complaint) < 250


#: the first bytes of other formats, as their specifications have them
OTHERS = {
    "a GIF file": b"GIF89a",
    "a BMP file": b"BM\x36\x10\0\0",
    "a TIFF file": b"II*\0",
    "a HEIC file": b"\0\0\0\x18ftypheic",
    "an AVIF file": b"\0\0\0\x1cftypavif",
    "a JPEG XL file": b"\0\0\0\x0cJXL \r\n\x87\n",
    "a PDF file": b"%PDF-1.7",
    "a PSD file": b"8BPS\0\1",
    "an SVG file": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg">',
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", OTHERS)
async def test_other_formats_are_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    """What cameras and design tools save is named before anything is spent, in every form."""
    content = OTHERS[name] + bytes(6_000)
    (tmp_path / "photo.jpg").write_bytes(content)
    text = base64.b64encode(content).decode()
    for form in (str(tmp_path / "photo.jpg"), content, text, f"data:image/png;base64,{text}"):
        row = {"prompt": "at night", "model": "flux-kontext-pro", "input_image": form}
        complaint = await complaint_of([row], allow_files=tmp_path)
        assert f"{name}; JPEG, PNG and WebP are taken: export it as PNG" in complaint


@pytest.mark.asyncio
@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz"])
async def test_a_row_of_megabytes_of_images_is_read(tmp_path: Path, ending: str) -> None:
    """A body holds images up to 20 MB each; only the rest of a row is limited to 1 MB."""
    photos = [png(640, 640) + os.urandom(size) for size in (3_000_000, 7_000_000)]
    first, second = (base64.b64encode(photo).decode() for photo in photos)
    row = {
        "prompt": "at night", "model": "flux-kontext-pro", "input_image": first,
        "input_image_2": f"data:image/png;base64,{second}",
    }  # fmt: skip
    text = json.dumps(row) + '\n{"prompt": "a fox"}\n'
    if ending == "json":
        text = f"[{json.dumps(row)}, {{}}]".replace("{}", '{"prompt": "a fox"}')
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(gzip.compress(text.encode(), 1) if "gz" in ending else text.encode())
    large, small = await requests_of(path)
    assert small.prompt == "a fox"
    assert [large.parameters[name].sha256 for name in ("input_image", "input_image_2")] == [
        ImageInput.of(photo).sha256 for photo in photos
    ]


@pytest.mark.asyncio
async def test_a_row_whose_text_is_long_is_refused_though_it_holds_an_image(tmp_path: Path) -> None:
    """The limit of 1 MB is of all that is no image."""
    row = {"prompt": "x " * 600_000, "model": "flux-kontext-pro", "input_image": TEXT}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert "longer than 1,000,000 bytes" in await complaint_of(tmp_path / "rows.jsonl")


@pytest.mark.asyncio
async def test_base64_in_a_column_of_ones_own_is_kept_as_its_digest(tmp_path: Path) -> None:
    """A thumbnail beside the prompt is metadata; the journal and the lists have its digest."""
    photo = "data:image/png;base64," + base64.b64encode(png(64) + os.urandom(9_000)).decode()
    row = {"prompt": "x", "thumbnail": photo, "note": "a " * 9_000}
    async with (
        echo_server() as server,
        fast_session(server.url) as flux,
        Batch(flux, [row], out=tmp_path) as batch,
    ):
        await outcomes_of(batch)
    [line] = rows(tmp_path / "metadata.jsonl")
    assert line["extras"]["thumbnail"] == f"sha256:{hashlib.sha256(photo.encode()).hexdigest()}"
    assert line["extras"]["note"] == row["note"]
    assert not files_with(tmp_path, photo[900:1000])


# --- no message holds more than 120 characters of a value -----------------------------------------

HUGE = {
    "base64": "QUJD" * 5_000,
    "an image": URI * 3,
    "words": "a quiet harbour at dawn, " * 800,
    "quotes": 'it\'s "so" ' * 2_000,
    "lines": "line\n" * 4_000,
    "wide": "雪の中の赤い狐" * 2_000,
    "a number": "9" * 4_000,
    "list": ["x" * 3_000] * 3,
    "object": {"y" * 3_000: "x" * 3_000},
    "int": 10**3_000,
    "bytes": b"\xff" * 9_000,
}

FIELDS = (
    "prompt", "model", "name", "n", "seed", "width", "guidance", "output_format",
    "prompt_upsampling", "image_prompt", "safety_tolerance", "webhook_url", "extra_body", "extras",
    "input_image", "aspect_ratio", "images", "mine", "widht", "key",
)  # fmt: skip


def longest_of(value: Any, message: str) -> int:
    """Return the length of the longest part of the value's text in the message."""
    texts = [value] if isinstance(value, str) else [str(value), repr(value)]
    if isinstance(value, bytes):
        texts.append(base64.b64encode(value).decode())
    texts += [" ".join(text.split()) for text in texts] + [repr(text)[1:-1] for text in texts]
    return max(
        length
        for text in texts
        for length in range(min(len(text), 400))
        if not length or text[:length] in message or text[-length:] in message
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("field", FIELDS)
async def test_no_complaint_about_a_row_holds_more_than_120_characters_of_a_value(
    field: str, kind: str
) -> None:
    """Every field, with a value that is too long, as a value and as the name of a column."""
    value = HUGE[kind]
    models = ("flux-dev", "flux-kontext-pro", "flux-2-pro", "a-model-of-tomorrow")
    given_rows = [{"prompt": "a fox", "model": model, field: value} for model in models]
    if isinstance(value, str):
        given_rows += [{"prompt": "a fox", f"{field} {value}": 1}, {"prompt": "a fox", value: 1}]
    for row in given_rows:
        for arguments in ([row], {}), ([{"prompt": "a fox"}], {"parameters": row}):
            source, options = arguments
            try:
                plan = await plan_of(source, **options)
                shown = [*plan.notes, *plan.unknown_keys, *plan.unknown_models]
            except ConfigError as error:
                shown = [str(error), repr(error)]
            for message in shown:
                assert longest_of(value, message) <= 120, message[:1_000]


#: what surrounds a value in messages, and what confuses a search for quotes
NOISE = st.text("ab '\"`“”\\,;:=(\n夜", min_size=1, max_size=30)
SLIPS = st.sampled_from(["widht", "heigth", "guidanse", "modle",
                         "raw", "aspect_ratio", "outputformat", "extra"])  # fmt: skip
LONG = st.builds(lambda text, times: text * times, NOISE, st.integers(1, 200))


def complaint_about(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Prompts([], **given)
    return str(caught.value)


@given(SLIPS, LONG)
def test_the_advice_about_a_mapping_is_whole(slip: str, value: str) -> None:
    """Whatever the column and the target are, both ways out are there with their options (other
    messages were cut inside: rucio/rucio#1116, superdesk/superdesk-core#1341)."""
    for target, column in ((f"x{value}", slip), (f"{slip}{value}x", value), (f"x{slip}", value)):
        message = complaint_about(columns={target: column})
        assert "is no parameter of any model; to send the column all the same: --map " in message
        assert "; to keep it as metadata: --map extras." in message
        assert longest_of(value, message) <= 120


@pytest.mark.asyncio
@given(st.lists(SLIPS, min_size=1, unique=True), st.lists(LONG, max_size=3, unique=True))
async def test_the_advice_about_keys_is_whole(slips: list[str], values: list[str]) -> None:
    """However many keys are wrong, and whatever stands beside them."""
    row = {"prompt": "a fox", **dict.fromkeys(values, 1), **dict.fromkeys(slips, "x")}
    message = await complaint_of([row])
    them = "it" if len(slips) == 1 else "them"
    assert f'; to keep {them} as metadata, put {them} inside "extras" (' in message
    assert message.endswith(f'); to send {them} all the same, inside "extra_body"')
    for slip in slips:
        assert f"--map extras.{slip}={slip}" in message


@given(LONG)
def test_a_value_in_quotes_is_cut_and_no_words_after_it(value: str) -> None:
    """Messages of other software have values as `repr` writes them, among words of their own."""
    words = (
        "is not allowed here, because the server's configuration has no such entry; ask the owner"
    )
    rest = f'{words} of "extra_body" and {words} (“{words}”), inside "extras"'
    shown = cut_values(f"the value {value!r} {rest}")
    assert shown.endswith(rest)
    assert longest_of(value, shown.removesuffix(rest)) <= 120
    assert str(ConfigError(f'put it inside "extras" (a column: {rest}) {rest}')).endswith(rest)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["base64", "an image", "words", "quotes", "wide"])
async def test_a_refusal_that_repeats_the_body_is_kept_without_it(
    tmp_path: Path, kind: str
) -> None:
    """The 422 of the provider repeats its input: error, journal and failures.jsonl do not."""
    value = HUGE[kind]
    request = ImageRequest(prompt="a fox", extra_body={"more": value})
    entry = {"type": "x", "loc": ["body", "more"], "msg": "Input should be less", "input": value}
    for number, detail in enumerate([value, f"invalid value '{value}' in more", [entry]]):
        async with (
            refusing(detail) as url,
            fast_session(url) as flux,
            Batch(flux, [request], out=tmp_path / str(number)) as batch,
        ):
            [failed] = await outcomes_of(batch)
        assert isinstance(failed, Failed)
        [line] = rows(tmp_path / str(number) / "failures.jsonl")
        for message in (str(failed.error), line["message"]):
            assert longest_of(value, message) <= 120, message


@asynccontextmanager
async def refusing(detail: Any) -> AsyncIterator[str]:
    """Serve a provider that refuses every submission with this detail."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"detail": detail}, status=422)

    app = web.Application(client_max_size=2**27)
    app.router.add_post("/{path:.+}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_cutting_a_message_keeps_its_own_words() -> None:
    """Only a run without spaces and what stands in quotes is cut; both its ends stay."""
    words = "the provider's queue is full, and the run's slots wait; it isn't an error. " * 5
    assert cut_values(words) == words
    cut = cut_values(f"input_image=/photos/{'x' * 300}/fox.png: no such file")
    assert cut.startswith("input_image=/photos/xxx")
    assert cut.endswith("xx/fox.png: no such file")
    assert len(cut) < 150
    assert len(cut_values("prompt='" + "a b " * 100 + "': too long")) < 140


def test_an_image_input_shows_no_bytes() -> None:
    """`repr` is for logs: it has the digest."""
    assert TEXT[50:90] not in repr(ImageInput.of(TEXT))
    assert webp() not in repr(ImageInput.of(webp())).encode()
