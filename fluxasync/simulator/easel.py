"""A canvas to paint on: its colours, its dice, and masks with smooth edges (pillow).

A prompt's words pick the light where they say something (night, sunset, snow, … in a few
languages), its hash the rest; the seed moves everything about. Knows no scene. Masks are drawn at
double size and reduced, which is cheaper than smooth drawing in colour; so every coordinate given
to a mask is doubled.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from random import Random

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]

_LIGHTS = {
    "night": ("night", "moon", "star", "midnight", "nacht", "nuit", "noche", "夜", "月", "ночь"),
    "dusk": ("sunset", "dusk", "evening", "autumn", "fire", "abend", "soir", "atardecer", "夕"),
    "cold": ("snow", "ice", "winter", "frost", "arctic", "schnee", "neige", "nieve", "雪", "снег"),
    "day": ("day", "summer", "noon", "spring", "garden", "morning", "sommer", "été", "春"),
}
_USUAL_LIGHTS = ("night", "dusk", "day", "day", "cold")


class Easel:
    """A canvas, its size, the dice of this prompt and seed, and its colours."""

    def __init__(self, prompt: str, seed: int, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.character = Random(prompt.encode("utf-8", "surrogatepass"))  # the same for any seed
        self.dice = Random(f"{self.character.random()}|{seed}")
        light = told(prompt, _LIGHTS) or self.character.choice(_USUAL_LIGHTS)
        self.dark = light == "night"
        self._fill_palette(light)
        self.picture = gradient(self.sky, width, height)

    def _fill_palette(self, light: str) -> None:
        character = self.character
        hue = {"night": 0.64, "dusk": 0.93, "cold": 0.55, "day": 0.54}[light]
        hue += character.uniform(-0.09, 0.09) + self.dice.uniform(-0.03, 0.03)
        self.hue = hue
        far = hue + character.choice((-0.42, -0.16, 0.1, 0.14, 0.45))
        if light == "night":
            self.sky = [hls(hue, 0.07, 0.6), hls(hue, 0.16, 0.5), hls(far, 0.34, 0.4)]
            self.near, self.haze = hls(hue, 0.05, 0.5), hls(far, 0.28, 0.32)
            self.lamp = hls(0.14, 0.92, 0.5)
        elif light == "dusk":
            self.sky = [hls(hue - 0.18, 0.28, 0.45), hls(hue, 0.55, 0.6), hls(0.09, 0.74, 0.9)]
            self.near, self.haze = hls(hue - 0.22, 0.12, 0.45), hls(hue + 0.06, 0.62, 0.5)
            self.lamp = hls(0.11, 0.88, 1.0)
        elif light == "cold":
            self.sky = [hls(hue, 0.55, 0.38), hls(hue, 0.76, 0.42), hls(far, 0.9, 0.5)]
            self.near, self.haze = hls(hue + 0.04, 0.3, 0.35), hls(hue, 0.86, 0.4)
            self.lamp = hls(0.13, 0.97, 0.6)
        else:
            self.sky = [hls(hue, 0.48, 0.6), hls(hue, 0.72, 0.6), hls(0.12, 0.89, 0.65)]
            green = character.choice((0.28, 0.36, 0.44, 0.08))
            self.near, self.haze = hls(green, 0.2, 0.45), hls(hue, 0.78, 0.4)
            self.lamp = hls(0.13, 0.94, 1.0)

    def depth(self, share: float) -> Colour:
        """From the haze far away (0) to what is near (1)."""
        return mixed(self.haze, self.near, share)

    def mask(self, draw: Callable[[ImageDraw.ImageDraw], None]) -> Image.Image:
        """Draw in coordinates of the double size; edges come out smooth."""
        large = Image.new("L", (self.width * 2, self.height * 2))
        draw(ImageDraw.Draw(large))
        return large.reduce(2)

    def lay(self, colours: Sequence[Colour], mask: Image.Image) -> None:
        """Paste a vertical gradient through the mask, from its top to its bottom."""
        box = mask.getbbox()
        if box is None:
            return
        left, top, right, bottom = box
        layer = gradient(colours, right - left, bottom - top)
        self.picture.paste(layer, box, mask.crop(box))


def told(prompt: str, table: dict[str, tuple[str, ...]]) -> str | None:
    """The entry most of whose words the prompt has, if any."""
    text = prompt.casefold()
    spoken = set(re.findall(r"\w+", text))

    def is_said(word: str) -> bool:  # Chinese and Japanese put no spaces between words
        return word in spoken or f"{word}s" in spoken or (ord(word[0]) > 0x2E80 and word in text)

    counts = {name: sum(map(is_said, words)) for name, words in table.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def hls(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue % 1.0, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def gradient(colours: Sequence[Colour], width: int, height: int) -> Image.Image:
    """The colours from top to bottom."""
    column = Image.new("RGB", (1, height))
    steps = len(colours) - 1
    rows = []
    for y in range(height):
        place = y / max(1, height - 1) * steps
        upper = min(int(place), steps - 1) if steps else 0
        rows.append(mixed(colours[upper], colours[min(upper + 1, steps)], place - upper))
    column.putdata(rows)
    return column.resize((width, height), Image.Resampling.NEAREST)


@lru_cache(maxsize=4)
def _grain(width: int, height: int) -> Image.Image:
    tile = Image.frombytes("L", (256, 256), Random(0).randbytes(256 * 256))
    tile = tile.point([128 + (level - 128) // 20 for level in range(256)])
    grain = Image.new("L", (width, height))
    for x in range(0, width, 256):
        for y in range(0, height, 256):
            grain.paste(tile, (x, y))
    return Image.merge("RGB", (grain, grain, grain))


def grained(picture: Image.Image) -> Image.Image:
    """A little noise, as film has it: gradients do not band."""
    return ImageChops.add(picture, _grain(*picture.size), offset=-128)


@lru_cache(maxsize=2)
def glow(strength: float) -> Image.Image:
    """Light that fades to nothing at the edge of its square."""
    edge = 180  # what pillow's gradient has come to there; 255 is the corners
    fades = [max(0.0, 1 - level / edge) ** 1.7 * 255 * strength for level in range(256)]
    return Image.radial_gradient("L").point([round(level) for level in fades])


def circle(across: float, down: float, radius: float) -> tuple[float, float, float, float]:
    """A circle's box at double size."""
    x, y, r = across * 2, down * 2, radius * 2
    return x - r, y - r, x + r, y + r


def encoded(picture: Image.Image, form: str, quality: int) -> bytes:
    """The picture as a jpeg, png or webp file."""
    sheet = BytesIO()
    if form == "png" and quality < 50:  # PNG has no quality; fewer colours are fewer bytes
        picture = picture.quantize(max(2, quality))
    if form == "png":
        picture.save(sheet, "PNG", compress_level=1 if quality >= 50 else 9)
    elif form == "webp":
        picture.save(sheet, "WEBP", quality=quality, method=0)
    else:
        picture.save(sheet, "JPEG", quality=quality)
    return sheet.getvalue()
