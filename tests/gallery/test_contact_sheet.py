"""The contact sheet, and what `fluxasync gallery` writes and opens."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support.command_line import command
from support.gallery_folders import Folder, cards_of, picture

pytest.importorskip("PIL", reason="the extra `image` is not installed")

from PIL import Image

from fluxasync import ConfigError, SinkError, gallery
from fluxasync._store.picks import append_picks
from fluxasync.gallery.contact_sheet import MOST_IMAGES, check_count, layout_of

pytestmark = pytest.mark.asyncio


def five_images(path: Path) -> Path:
    folder = Folder(path)
    for number in range(5):
        folder.saved(seed=number)
    folder.failed()
    return path


async def test_a_sheet_has_every_image_and_is_replaced_whole(tmp_path):
    """Saved images only; a second one replaces the first."""
    run, sheet = five_images(tmp_path / "run"), tmp_path / "sheet.png"
    assert await gallery.sheet(run, sheet) == 5
    with Image.open(sheet) as drawn:
        columns, side = layout_of(5)
        assert drawn.width == 16 + columns * (side + 16)
        colours = drawn.convert("RGB").getcolors(2**24)
    # each picture has its own colour: red goes up with its number
    reds = {colour[0] for count, colour in colours if count > 10_000 and abs(colour[1] - 90) < 6}
    assert len(reds) >= 5
    before = sheet.read_bytes()
    append_picks(run, {f"{1:064x}": True, f"{2:064x}": True, f"{3:064x}": False})
    assert await gallery.sheet(run, sheet, picked=True) == 2
    assert sheet.read_bytes() != before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []


async def test_an_image_that_cannot_be_decoded_is_left_out(tmp_path):
    """It has no thumbnail, as on the page."""
    run = five_images(tmp_path / "run")
    (run / "000001.jpg").write_bytes(picture()[:200])
    assert await gallery.sheet(run, tmp_path / "sheet.webp") == 4


async def test_what_cannot_be_a_sheet_is_an_error(tmp_path):
    """Before a thumbnail is made; an error of the disk leaves no file."""
    run = five_images(tmp_path / "run")
    for name, said in (("sheet.gif", "name a .png, .jpg or .webp"), ("run", "name a .png")):
        with pytest.raises(ConfigError, match=said):
            await gallery.sheet(run, tmp_path / name)
    with pytest.raises(ConfigError, match="picks no image"):
        await gallery.sheet(run, tmp_path / "sheet.png", picked=True)
    with pytest.raises(ConfigError, match="too many for a sheet"):
        check_count(run, MOST_IMAGES + 1)
    with pytest.raises(SinkError, match="cannot be written"):
        await gallery.sheet(run, tmp_path / "missing" / "sheet.png")


async def test_a_sheet_is_never_larger_than_a_screen_can_show():
    """However many images it has, its longer side stays near six thousand pixels."""
    for count in (1, 2, 7, 50, 333, MOST_IMAGES):
        columns, side = layout_of(count)
        rows = -(-count // columns)
        assert max(columns, rows) * (side + 16 + side // 14) < 6_500


async def test_a_page_of_picked_images_only(tmp_path):
    """For someone else; the page in the folder keeps all, and so do its thumbnails."""
    run = five_images(tmp_path / "run")
    await gallery.write(run)
    append_picks(run, {f"{4:064x}": True})
    made = await gallery.write(run, out=tmp_path / "page", picked=True)
    assert [card["seed"] for card in cards_of(made.path.read_bytes())] == [4]
    assert len(list((run / ".fluxasync" / "thumbs").iterdir())) == 5
    with pytest.raises(ConfigError, match="name another with out"):
        await gallery.write(run, picked=True)


async def test_a_page_elsewhere_needs_no_place_in_the_folder_of_the_run(tmp_path):
    """Thumbnails are temporary where they cannot be kept: here because a file stands in the way, as
    in a folder that is read-only."""
    run = five_images(tmp_path / "run")
    (run / ".fluxasync").mkdir(exist_ok=True)
    (run / ".fluxasync" / "thumbs").write_text("in the way")
    with pytest.raises(SinkError, match="thumbs"):
        await gallery.write(run)
    made = await gallery.write(run, out=tmp_path / "page")
    assert (made.saved, made.without_thumb) == (5, 0)
    assert await gallery.sheet(run, tmp_path / "sheet.png") == 5
    assert (run / ".fluxasync" / "thumbs").read_text() == "in the way"


async def test_the_command_opens_the_page_and_refuses_what_does_not_fit(tmp_path):
    """The browser gets the address of the file."""
    run = five_images(tmp_path / "run")
    opener = tmp_path / "opener"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    ended = await command("gallery", "run", "--open", cwd=tmp_path, BROWSER=f"{opener} %s")
    assert (ended.code, ended.out) == (0, ["run/gallery.html"])
    assert (tmp_path / "opened").read_text().strip() == (run / "gallery.html").as_uri()
    for options, said in (
        (("--picked",), "add --out or --sheet"),
        (("--sheet", "x.png", "--watch"), "leave --watch and --out out"),
        (("--watch", "-o", "page"), "give one of them"),
    ):
        ended = await command("gallery", "run", *options, cwd=tmp_path)
        assert (ended.code, said in ended.said) == (2, True), options
    ended = await command("gallery", "run", "--sheet", "x.jpg", cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (0, ["x.jpg"], ["5 images"])
    with Image.open(io.BytesIO((tmp_path / "x.jpg").read_bytes())) as drawn:
        assert drawn.format == "JPEG"
