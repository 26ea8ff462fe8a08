"""Image inputs reach the wire as they are, or are refused before anything is spent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fluxasync import ConfigError, ImageInput, ImageRequest
from fluxasync._requests.catalog import validate
from fluxasync._requests.image_inputs import (
    allowed_folders,
    encode_image_inputs,
    open_inside,
    open_within,
    resolve,
    resolve_now,
)


def png(width: int = 64, height: int = 64) -> bytes:
    """Return a whole grey PNG, built here so that the reader of it is not its writer."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    # one row is enough for readers that do not decode, and keeps huge sizes cheap here
    rows = zlib.compress(bytes(width + 1) * min(height, 64))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


FOX = png()


def request(**parameters: object) -> ImageRequest:
    return validate(ImageRequest(prompt="a fox", model="flux-kontext-pro", parameters=parameters))


def test_a_path_gets_its_digest_and_size(tmp_path: Path) -> None:
    """A relative path is found beside the prompt file, and enters the key by its content."""
    (tmp_path / "fox.png").write_bytes(FOX)
    found = resolve_now(request(input_image="fox.png"), base=tmp_path)
    digest = hashlib.sha256(FOX).hexdigest()
    expected = ImageInput(path=tmp_path / "fox.png", sha256=digest)
    assert found.parameters["input_image"] == expected
    assert found.parameters["input_image"].pixels == 64 * 64
    assert found.content_key == request(input_image=FOX).content_key


@pytest.mark.asyncio
async def test_files_are_read_off_the_loop(tmp_path: Path) -> None:
    """Both readings happen in the given executor, never in the loop's thread."""
    (tmp_path / "fox.png").write_bytes(FOX)
    names: list[str] = []
    with ThreadPoolExecutor(1, initializer=lambda: names.append(_thread())) as executor:
        found = await resolve(request(input_image="fox.png"), base=tmp_path, executor=executor)
        assert len(names) == 1
        wire = await encode_image_inputs(found, executor=executor)
    assert wire == {"input_image": base64.b64encode(FOX).decode()}
    assert _thread() not in names


def _thread() -> str:
    return threading.current_thread().name


@pytest.mark.asyncio
async def test_every_form_reaches_the_wire(tmp_path: Path) -> None:
    """A path and bytes become base64, a URL stays one, each under its wire name."""
    (tmp_path / "fox.png").write_bytes(FOX)
    given = request(
        input_image=tmp_path / "fox.png", input_image_2=FOX, input_image_3="https://e.com/f.png"
    )
    text = base64.b64encode(FOX).decode()
    expected = {"input_image": text, "input_image_2": text, "input_image_3": "https://e.com/f.png"}
    assert await encode_image_inputs(await resolve(given)) == expected


@pytest.mark.asyncio
async def test_the_image_prompt_is_an_input_too(tmp_path: Path) -> None:
    """The vendor page's own image parameter is read like the others."""
    (tmp_path / "fox.png").write_bytes(FOX)
    found = await resolve(ImageRequest(image_prompt="fox.png"), base=tmp_path)
    assert await encode_image_inputs(found) == {"image_prompt": base64.b64encode(FOX).decode()}


@pytest.mark.asyncio
async def test_requests_without_files_take_no_thread() -> None:
    """Nothing to read means no hop: a closed executor is not even asked."""
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    for given in (request(), request(input_image="https://e.com/f.png")):
        assert await resolve(given, executor=closed) is given
        assert len(await encode_image_inputs(given, executor=closed)) == len(given.parameters)


@pytest.mark.asyncio
async def test_a_file_that_changed_since_it_was_checked_is_refused(tmp_path: Path) -> None:
    """The image that is sent is the one that was checked and counted, or nothing is sent."""
    path = tmp_path / "fox.png"
    path.write_bytes(FOX)
    found = await resolve(request(input_image=path))
    path.write_bytes(png(128, 64))
    with pytest.raises(ConfigError, match=r"fox\.png: has changed since"):
        await encode_image_inputs(found)


@pytest.mark.asyncio
async def test_a_known_digest_is_kept(tmp_path: Path) -> None:
    """Resolving twice does not give a request another identity behind its back."""
    path = tmp_path / "fox.png"
    path.write_bytes(FOX)
    found = await resolve(request(input_image=path))
    path.write_bytes(png(128, 64))
    assert await resolve(found, base=Path("/elsewhere")) is found


def test_an_edited_file_gets_a_new_digest(tmp_path: Path) -> None:
    """Digests are remembered only for a file that has not changed."""
    path = tmp_path / "fox.png"
    keys = set()
    for width in (64, 128):
        path.write_bytes(png(width))
        keys.add(resolve_now(request(input_image=path)).content_key)
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"<!DOCTYPE html><html>", "html", id="F75 html as image"),
        pytest.param(b'{"detail": "no"}', "json", id="F75 json as image"),
        pytest.param(b"GIF89a" + bytes(100), "JPEG, PNG and WebP are taken", id="another format"),
        pytest.param(png(63, 64), "63×64 pixels; each side needs 64 or more", id="too small"),
        pytest.param(png(8192, 8192), "8192×8192 pixels; 20 MP at most", id="too many pixels"),
        pytest.param(FOX + bytes(20 * 2**20), "20 MB at most", id="too many bytes"),
    ],
)
def test_unfit_images_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """An image that the provider would refuse is refused, by path and by bytes."""
    path = tmp_path / "fox.png"
    path.write_bytes(content)
    for given, name in ((path, f"input_image={path}: "), (content, "input_image: ")):
        with pytest.raises(ConfigError) as caught:
            resolve_now(request(input_image=given))
        assert str(caught.value).startswith(name)
        assert reason.lower() in str(caught.value).lower()


def test_oddly_built_images_are_left_to_the_provider() -> None:
    """A photograph with its phone's own data behind the end is taken."""
    assert resolve_now(request(input_image=FOX + b"maker notes" * 9)).content_key


@pytest.mark.parametrize("name", ["nowhere.png", "folder", "pipe", "nul\0.png", "x" * 300])
def test_paths_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    """A missing file, a folder and a pipe are refused at once, by name."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"^input_image="):
        resolve_now(request(input_image=name), base=tmp_path)


@pytest.mark.asyncio
async def test_the_loop_runs_while_files_are_read(tmp_path: Path) -> None:
    """A slow disk delays one request, not the others."""
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "fox.png").write_bytes(FOX)
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(lambda: (tmp_path / "gate").read_bytes())
        waiting = asyncio.create_task(
            resolve(request(input_image="fox.png"), base=tmp_path, executor=executor)
        )
        await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.to_thread((tmp_path / "gate").write_bytes, b"open")
        assert (await waiting).content_key
        assert busy.result() == b"open"


# --- files that a list names ----------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a private picture beside a list's folder, and links from one to the other."""
    (tmp_path / "list" / "pictures").mkdir(parents=True)
    (tmp_path / "private.png").write_bytes(FOX)
    (tmp_path / "list" / "pictures" / "fox.png").write_bytes(FOX)
    (tmp_path / "list" / "link.png").symlink_to(tmp_path / "private.png")
    (tmp_path / "list" / "up").symlink_to(tmp_path)
    (tmp_path / "list" / "inside.png").symlink_to("pictures/fox.png")
    (tmp_path / "list-of-another").mkdir()
    (tmp_path / "list-of-another" / "fox.png").write_bytes(FOX)
    return tmp_path


OUTSIDE = ["../private.png", "link.png", "up/private.png", "pictures/../../private.png",
           "{home}/private.png", "{home}/list/../private.png", "{home}/gone.png",
           "../list-of-another/fox.png", "/etc/passwd", "/proc/self/environ",
           "/dev/zero"]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_file_outside_of_the_allowed_folders_is_not_opened(home: Path, name: str) -> None:
    """S6: links are resolved first, and the answer is the same whether the file exists."""
    path = name.format(home=home)
    image = ImageInput(path=Path(path), within=allowed_folders(home / "list"))
    with pytest.raises(ConfigError, match=r"outside the list's folder; .* --allow-files DIR"):
        resolve_now(request(input_image=image), base=home / "list")


@pytest.mark.parametrize("name", ["pictures/fox.png", "inside.png", "{home}/list/inside.png"])
def test_a_file_below_an_allowed_folder_is_read(home: Path, name: str) -> None:
    """A link is followed as long as it stays below the folder."""
    image = ImageInput(path=Path(name.format(home=home)), within=allowed_folders(home / "list"))
    found = resolve_now(request(input_image=image), base=home / "list")
    assert found.content_key == request(input_image=FOX).content_key


def test_a_further_folder_is_allowed_by_name(home: Path) -> None:
    """Folders add up, and a link to an allowed folder is one itself."""
    (home / "photos").symlink_to(home / "list-of-another")
    allowed = allowed_folders([home / "list", home / "photos"])
    os.close(open_within(home / "list-of-another" / "fox.png", allowed))
    os.close(open_within(home / "photos" / "fox.png", allowed))
    with pytest.raises(ConfigError, match=r"allow_files: .*nowhere is no folder"):
        allowed_folders(home / "nowhere")


@pytest.mark.parametrize("name", ["link.png", "up/private.png"])
def test_a_link_that_appears_after_the_check_is_not_followed(home: Path, name: str) -> None:
    """S6: a path whose links were resolved is opened without following any."""
    with pytest.raises(OSError, match=r"symbolic|directory"):
        open_inside(os.path.realpath(home / "list"), Path(name).parts)


@pytest.mark.asyncio
async def test_a_link_swapped_for_a_checked_file_uploads_nothing(home: Path) -> None:
    """A link that takes the place of a checked file uploads nothing."""
    path = home / "list" / "pictures" / "fox.png"
    image = ImageInput(path=path, within=allowed_folders(home / "list"))
    found = resolve_now(request(input_image=image))
    path.unlink()
    path.symlink_to(home / "private.png")
    with pytest.raises(ConfigError, match="outside the list's folder"):
        await encode_image_inputs(found)
