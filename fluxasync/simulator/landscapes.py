"""Landscapes drawn from a prompt and a seed (pillow).

Words of the prompt select the scene and the light; a hash of it selects the rest. The first words
are written into a corner, so that image and prompt can be matched by eye, and the parameters into
another one; they also shift the colours, as a model's parameters change an image of one seed.
"""

from __future__ import annotations

import colorsys
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

_MOST_PIXELS = 1_100_000  # larger images are drawn at this size and scaled up
_LIGHT_WORDS = {
    "night": ("night", "moon", "star", "midnight", "nacht", "nuit", "noche", "夜", "月", "ночь"),
    "dusk": ("sunset", "dusk", "evening", "autumn", "fire", "abend", "soir", "atardecer", "夕"),
    "cold": ("snow", "ice", "winter", "frost", "arctic", "schnee", "neige", "nieve", "雪", "снег"),
    "day": ("day", "summer", "noon", "spring", "garden", "morning", "sommer", "été", "春"),
}
_USUAL_LIGHTS = ("night", "dusk", "day", "day", "cold")
_SCENE_WORDS = {
    "sea": ("sea", "ocean", "lake", "boat", "whale", "harbour", "lighthouse", "meer", "mer", "海"),
    "city": ("city", "street", "neon", "tokyo", "robot", "train", "stadt", "ville", "ciudad", "都"),
    "forest": ("forest", "tree", "fox", "deer", "wood", "owl", "wald", "forêt", "bosque", "森"),
    "dunes": ("desert", "sand", "dune", "camel", "mars", "wüste", "désert", "desierto", "砂"),
    "hills": ("hill", "mountain", "valley", "meadow", "river", "berg", "montagne", "montaña", "山"),
    "planets": ("planet", "space", "galaxy", "astronaut", "cosmos", "moon", "rocket", "宇"),
    "aurora": ("aurora", "northern", "glow", "dream", "spirit", "magic", "traum", "rêve", "夢"),
}


def draw(prompt: str, seed: int, width: int, height: int, *, variant: str = "") -> Image.Image:
    """Return the landscape of a prompt and a seed, with its caption and with what is different
    about it."""
    shrink = max(1.0, math.sqrt(width * height / _MOST_PIXELS))
    size = (max(16, round(width / shrink)), max(16, round(height / shrink)))
    canvas = _Canvas(prompt, seed, *size, shift=_shift(variant))
    scene = _best_match(prompt, _SCENE_WORDS) or canvas.prompt_rng.choice(sorted(_SCENES))
    _SCENES[scene](canvas)
    image = ImageChops.add(canvas.image, _grain(*size), offset=-128)
    if size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    _write_caption(image, prompt, seed)
    if variant:
        _write(image, variant, is_top=True)
    return image


def _shift(variant: str) -> float:
    """Return a shift of the hue that is the same for equal variants."""
    return Random(variant.encode("utf-8", "replace")).uniform(-0.12, 0.12) if variant else 0.0


class _Canvas:
    """The image being drawn, its palette and its random numbers.

    Shapes are drawn at twice the size and reduced, which smooths their edges: all coordinates of
    shapes are fractions of `w` and `h`, the doubled sides.
    """

    def __init__(
        self, prompt: str, seed: int, width: int, height: int, *, shift: float = 0.0
    ) -> None:
        self.w, self.h = width * 2, height * 2
        self.unit = min(self.w, self.h)
        self.prompt_rng = Random(prompt.encode("utf-8", "surrogatepass"))  # equal for all seeds
        self.rng = Random(f"{self.prompt_rng.random()}|{seed}")
        self.shift = shift
        light = _best_match(prompt, _LIGHT_WORDS)
        self._choose_colours(
            light or self.prompt_rng.choice(("night", "dusk", "day", "day", "cold"))
        )
        self.image = _gradient(self.sky, width, height)

    def _choose_colours(self, light: str) -> None:
        self.is_dark = light == "night"
        hue = {"night": 0.64, "dusk": 0.93, "cold": 0.55, "day": 0.54}[light]
        hue += self.prompt_rng.uniform(-0.09, 0.09) + self.rng.uniform(-0.03, 0.03)
        self.hue = hue = hue + self.shift
        other = hue + self.prompt_rng.choice((-0.42, -0.16, 0.1, 0.14, 0.45))
        green = self.prompt_rng.choice((0.28, 0.36, 0.44, 0.08))
        colours = {  # the sky from its top, then near, haze, lamp; as hue, lightness, saturation
            "night": ((hue, 0.07, 0.6), (hue, 0.16, 0.5), (other, 0.34, 0.4),
                      (hue, 0.05, 0.5), (other, 0.28, 0.32), (0.14, 0.92, 0.5)),
            "dusk": ((hue - 0.18, 0.28, 0.45), (hue, 0.55, 0.6), (0.09, 0.74, 0.9),
                     (hue - 0.22, 0.12, 0.45), (hue + 0.06, 0.62, 0.5), (0.11, 0.88, 1.0)),
            "cold": ((hue, 0.55, 0.38), (hue, 0.76, 0.42), (other, 0.9, 0.5),
                     (hue + 0.04, 0.3, 0.35), (hue, 0.86, 0.4), (0.13, 0.97, 0.6)),
            "day": ((hue, 0.48, 0.6), (hue, 0.72, 0.6), (0.12, 0.89, 0.65),
                    (green, 0.2, 0.45), (hue, 0.78, 0.4), (0.13, 0.94, 1.0)),
        }[light]  # fmt: skip
        *self.sky, self.near, self.haze, self.lamp = (_rgb(*colour) for colour in colours)

    def depth(self, share: float) -> list[Colour]:
        """The colours of a layer, from far away (0) to near (1), misty at its foot."""
        colour = _mixed(self.haze, self.near, share)
        return [colour, _mixed(colour, self.haze, 0.5 * (1 - share))]

    def mask(self, draw: Callable[[ImageDraw.ImageDraw], object]) -> Image.Image:
        large = Image.new("L", (self.w, self.h))
        draw(ImageDraw.Draw(large))
        return large.reduce(2)

    def layer(
        self, colours: Sequence[Colour], draw: Callable[[ImageDraw.ImageDraw], object]
    ) -> Image.Image:
        """Fill a shape with a vertical gradient; return its mask."""
        mask = self.mask(draw)
        if box := mask.getbbox():
            fill = _gradient(colours, box[2] - box[0], box[3] - box[1])
            self.image.paste(fill, box, mask.crop(box))
        return mask

    def ground(self, colours: Sequence[Colour], line: list[Point], level: int = 255) -> None:
        """Fill everything below a line."""
        outline = [*line, (self.w, self.h), (0, self.h)]
        self.layer(colours, lambda draw: draw.polygon(outline, fill=level))

    def line(self, base: float, rise: float, rough: float) -> list[Point]:
        """A random line from left to right around `base`; `rough` 0..1 adds short waves."""
        waves = [
            (self.rng.uniform(0.6, 1.5) * 1.9**n, self.rng.uniform(0, math.tau), rough**n)
            for n in range(6)
        ]
        total = sum(weight for _, _, weight in waves)
        points, step = [], max(2, self.w // 400)
        for x in range(0, self.w + step, step):
            turn = x / self.w * math.tau
            wave = sum(math.sin(turn * freq + phase) * weight for freq, phase, weight in waves)
            points.append((float(x), self.h * (base - rise * wave / total)))
        return points


def _best_match(prompt: str, table: dict[str, tuple[str, ...]]) -> str | None:
    """The entry with most of its words in the prompt, if any."""
    text = prompt.casefold()
    words = set(re.findall(r"\w+", text))

    def occurs(word: str) -> bool:  # Chinese and Japanese have no spaces between words
        return word in words or f"{word}s" in words or (ord(word[0]) > 0x2E80 and word in text)

    counts = {name: sum(map(occurs, listed)) for name, listed in table.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def _rgb(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue % 1.0, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def _mixed(one: Sequence[int], other: Sequence[int], share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _gradient(colours: Sequence[Colour], width: int, height: int) -> Image.Image:
    """The colours from top to bottom."""
    column = Image.new("RGB", (1, len(colours)))
    column.putdata(list(colours))
    steps = len(colours) - 1
    box = (0, 0.5, 1, steps + 0.5) if steps else None
    return column.resize((1, height), Image.Resampling.BILINEAR, box).resize((width, height))


@lru_cache(maxsize=4)
def _grain(width: int, height: int) -> Image.Image:
    """A little noise, so that gradients show no bands."""
    tile = Image.frombytes("L", (256, 256), Random(0).randbytes(256 * 256))
    tile = tile.point([128 + (level - 128) // 20 for level in range(256)])
    grain = Image.new("L", (width, height))
    for x in range(0, width, 256):
        for y in range(0, height, 256):
            grain.paste(tile, (x, y))
    return Image.merge("RGB", (grain, grain, grain))


@lru_cache(maxsize=2)
def _glow(strength: float) -> Image.Image:
    """Light that fades to nothing at the edge of its square."""
    edge = 180  # level of pillow's gradient at the middle of an edge; the corners have 255
    fades = [max(0.0, 1 - level / edge) ** 1.7 * 255 * strength for level in range(256)]
    return Image.radial_gradient("L").point([round(level) for level in fades])


def _circle(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _write_caption(image: Image.Image, prompt: str, seed: int) -> None:
    """Write the first words of the prompt, or the seed if pillow's font has none of its letters."""
    plain = unicodedata.normalize("NFKD", prompt[:200]).encode("ascii", "ignore").decode()
    if prompt and not re.search(r"[A-Za-z0-9]", plain):
        plain = f"seed {seed}"
    _write(image, plain, is_top=False)


def _write(image: Image.Image, text: str, *, is_top: bool) -> None:
    """Write the first words of a text into a corner at the left."""
    words = text.encode("ascii", "replace").decode().split()
    size = max(12, min(image.size) // 22)
    font = ImageFont.load_default(size)
    fitting = [n for n in range(1, 8) if font.getlength(" ".join(words[:n])) < image.width * 0.7]
    text = " ".join(words[: fitting[-1]]) if fitting else ""
    place = (size * 0.7, size * 0.7 if is_top else image.height - size * 0.7)
    ImageDraw.Draw(image).text(
        place, text, font=font, anchor="la" if is_top else "ls", fill=(255, 252, 244),
        stroke_width=max(1, size // 12), stroke_fill=(30, 30, 40),
    )  # fmt: skip


# --------------------------------------------------------------------------------------- the scenes


def _lamp(c: _Canvas, *, low: float = 0.12, high: float = 0.45) -> tuple[float, float]:
    """Draw the sun or the moon with its glow; return its x and its radius."""
    x, y = c.w * c.rng.uniform(0.15, 0.85), c.h * c.rng.uniform(low, high)
    radius = c.unit * c.rng.uniform(0.045, 0.11)
    reach = round(radius * c.rng.uniform(2.5, 4.5))
    halo = _glow(0.55 if c.is_dark else 0.8).resize((reach * 2, reach * 2))
    c.image.paste(c.lamp, (round(x / 2) - reach, round(y / 2) - reach), halo)
    is_crescent = c.is_dark and c.rng.random() < 0.6

    def disc(draw: ImageDraw.ImageDraw) -> None:
        draw.ellipse(_circle(x, y, radius), fill=255)
        if is_crescent:
            draw.ellipse(_circle(x + radius * 0.5, y - radius * 0.25, radius * 0.9), fill=0)

    c.layer([c.lamp], disc)
    return x, radius


def _sky(c: _Canvas) -> None:
    if c.is_dark:
        _stars(c, 140)
    _lamp(c)
    if not c.is_dark and c.rng.random() < 0.7:
        _clouds(c)


def _stars(c: _Canvas, count: int) -> None:
    draw, size = ImageDraw.Draw(c.image), max(1, c.unit // 1000)
    for _ in range(count):
        x, y = c.rng.randrange(c.image.width), c.image.height * 0.7 * c.rng.random() ** 1.4
        end = size * c.rng.choice((1, 1, 1, 1, 1, 1, 1, 1, 1, 2))
        draw.ellipse((x, y, x + end, y + end), fill=_mixed(c.sky[0], c.lamp, c.rng.random()))


def _clouds(c: _Canvas) -> None:
    w, h = c.image.width // 4, c.image.height // 4
    mask = Image.new("L", (w, h))
    draw = ImageDraw.Draw(mask)
    for _ in range(c.rng.randint(3, 7)):
        x, y = c.rng.uniform(0, w), c.rng.uniform(0.05, 0.45) * h
        long = c.rng.uniform(0.08, 0.25) * w
        for _ in range(7):
            dx, r = c.rng.uniform(-long, long), c.rng.uniform(0.02, 0.05) * h
            puff = (x + dx - r * 5, y - r, x + dx + r * 5, y + r)
            draw.ellipse(puff, fill=c.rng.randint(60, 150))
    soft = mask.filter(ImageFilter.GaussianBlur(max(1, h // 60))).resize(c.image.size)
    c.image.paste(_mixed(c.sky[-1], (255, 255, 255), 0.6), (0, 0), soft)


def _hills(c: _Canvas) -> None:
    _sky(c)
    count, horizon = c.rng.randint(4, 6), c.rng.uniform(0.45, 0.6)
    rough = c.rng.uniform(0.35, 0.62)
    for n in range(count):
        share = (n + 1) / count
        base, rise = horizon + (0.95 - horizon) * n / count, c.rng.uniform(0.09, 0.2)
        c.ground(c.depth(share), c.line(base, rise * (1.1 - share * 0.5), rough))


def _dunes(c: _Canvas) -> None:
    _sky(c)
    c.near = _mixed(c.near, _rgb(0.07, 0.4, 0.6), 0.75)
    c.haze = _mixed(c.haze, _rgb(0.1, 0.8, 0.6), 0.5)
    horizon = c.rng.uniform(0.5, 0.62)
    for n in range(5):
        c.ground(c.depth((n + 1) / 5), c.line(horizon + 0.09 * n, 0.06 + 0.025 * n, 0.12))


def _forest(c: _Canvas) -> None:
    _sky(c)
    horizon = c.rng.uniform(0.42, 0.55)
    c.ground(c.depth(0.15), c.line(horizon, 0.16, 0.5))
    for n, share in enumerate((0.4, 0.7, 1.0)):
        _trees(c, share, horizon + 0.14 + n * 0.15, 0.13 + 0.09 * n)


def _trees(c: _Canvas, share: float, base: float, tall: float) -> None:
    """A row of firs on a low ridge."""
    line = c.line(base, 0.04, 0.3)

    def firs(draw: ImageDraw.ImageDraw) -> None:
        draw.polygon([*line, (c.w, c.h), (0, c.h)], fill=255)
        x = -c.w * 0.02
        while x < c.w:
            ground = line[max(0, int(x / c.w * (len(line) - 1)))][1] + 6
            height = c.h * tall * c.rng.uniform(0.45, 1.1)
            for n in range(4):
                tip, half = ground - height * (1 - n * 0.2), height * (0.07 + 0.045 * n)
                foot = tip + height * 0.42
                draw.polygon([(x, tip), (x - half, foot), (x + half, foot)], fill=255)
            x += c.h * tall * c.rng.uniform(0.1, 0.4)

    c.layer(c.depth(share), firs)


def _sea(c: _Canvas) -> None:
    if c.is_dark:
        _stars(c, 140)
    x, radius = _lamp(c, low=0.2, high=0.42)
    horizon = c.rng.uniform(0.5, 0.6)
    if c.rng.random() < 0.6:
        c.ground(c.depth(0.3), c.line(horizon, 0.05, 0.4))
    deep = _mixed(c.near, _rgb(c.hue, 0.25, 0.6), 0.5)
    water = [_mixed(c.sky[-1], deep, 0.25), _mixed(c.sky[1], deep, 0.6), deep]
    c.ground(water, [(0, c.h * horizon), (c.w, c.h * horizon)])
    _glitter(c, x, radius, horizon)
    for n in range(3):
        swell = c.line(horizon + 0.2 + 0.11 * n, 0.018, 0.45)
        c.ground([_mixed(c.sky[1], deep, 0.6 + 0.2 * n), deep], swell, level=170)
    if c.rng.random() < 0.7:
        _boat(c, horizon)


def _glitter(c: _Canvas, lamp: float, radius: float, horizon: float) -> None:
    """Draw the reflection of the lamp."""

    def glitter(draw: ImageDraw.ImageDraw) -> None:
        for n in range(46):
            y = c.h * (horizon + (1 - horizon) * (n / 46) ** 1.4) + 2
            half = radius * c.rng.uniform(0.15, 0.8) * (0.7 + n / 30)
            x = lamp + c.rng.uniform(-0.5, 0.5) * radius * (0.6 + n / 20)
            thick = max(1.0, c.w * 0.0008 * (1 + n / 8))
            draw.ellipse((x - half, y - thick, x + half, y + thick), fill=c.rng.randint(90, 230))

    c.layer([c.lamp], glitter)


def _boat(c: _Canvas, horizon: float) -> None:
    size = c.h * c.rng.uniform(0.06, 0.16)
    x, y = c.w * c.rng.uniform(0.15, 0.85), c.h * (horizon + 0.07)

    def shape(*points: Point) -> Callable[[ImageDraw.ImageDraw], object]:
        outline = [(x + dx * size, y + dy * size) for dx, dy in points]
        return lambda draw: draw.polygon(outline, fill=255)

    cloth = c.lamp if c.is_dark else (250, 246, 238)
    c.layer([cloth], shape((0, -1), (0, -0.06), (-0.3, -0.06)))
    c.layer([cloth], shape((0.03, -0.9), (0.03, -0.06), (0.3, -0.06)))
    c.layer([c.near], shape((-0.35, 0), (0.35, 0), (0.22, 0.14), (-0.25, 0.14)))


def _city(c: _Canvas) -> None:
    _sky(c)
    for n, share in enumerate((0.25, 0.55, 0.95)):
        _towers(c, share, 0.42 + 0.12 * n)


def _towers(c: _Canvas, share: float, roof: float) -> None:
    """A row of towers; near ones have windows, which are lit at night."""
    towers, x = [], -c.w * c.rng.uniform(0.0, 0.05)
    while x < c.w:
        wide = c.w * c.rng.uniform(0.035, 0.1) * (0.7 + share * 0.6)
        towers.append((x, c.h * (roof + c.rng.uniform(-0.16, 0.16)), x + wide, float(c.h)))
        x += wide + c.w * c.rng.choice((0.0, 0.004, 0.012))

    def walls(draw: ImageDraw.ImageDraw) -> None:
        for left, top, right, bottom in towers:
            draw.rectangle((left, top, right, bottom), fill=255)
            if c.rng.random() < 0.25:
                mast = (left + right) / 2
                draw.rectangle((mast - 2, top - c.h * 0.06, mast + 2, top), fill=255)

    def windows(draw: ImageDraw.ImageDraw) -> None:
        pane = c.w * 0.006 * (0.6 + share * 0.5)
        lit, brightest = (0.5, 235) if c.is_dark else (0.3, 110)
        for left, top, right, bottom in towers:
            for row in range(int((bottom - top) / pane / 2.2)):
                for column in range(int((right - left - pane) / pane / 1.7)):
                    if c.rng.random() < lit:
                        x, y = left + pane * (1 + 1.7 * column), top + pane * (1.5 + 2.2 * row)
                        box = (x, y, x + pane * 0.7, y + pane)
                        draw.rectangle(box, fill=c.rng.randint(60, brightest))

    c.layer(c.depth(share), walls)
    if share > 0.4:
        c.layer([c.lamp], windows)


def _planets(c: _Canvas) -> None:
    hue = c.rng.choice((0.6, 0.66, 0.75, 0.9))
    deep, veil = _rgb(hue, 0.05, 0.6), _rgb(hue + 0.08, 0.19, 0.55)
    c.image = _gradient([deep, veil, deep], *c.image.size)
    _stars(c, 280)
    for _ in range(c.rng.randint(1, 3)):
        _globe(c, c.rng.random(), c.rng.random(), c.unit * c.rng.uniform(0.03, 0.09))
    _globe(
        c, c.rng.uniform(0.25, 0.75), c.rng.uniform(0.3, 0.75), c.unit * c.rng.uniform(0.2, 0.36)
    )


def _globe(c: _Canvas, across: float, down: float, radius: float) -> None:
    """A striped planet with one side in shadow; large ones may have rings."""
    x, y, hue = c.w * across, c.h * down, c.rng.random()
    stripes = [
        _rgb(hue + c.rng.uniform(-0.05, 0.05), c.rng.uniform(0.4, 0.75), 0.5) for _ in range(9)
    ]
    disc = c.layer(stripes, lambda draw: draw.ellipse(_circle(x, y, radius), fill=255))
    lit = _circle(x - radius * 0.35, y - radius * 0.3, radius * 1.15)
    shadow = ImageChops.subtract(disc, c.mask(lambda draw: draw.ellipse(lit, fill=255)))
    shadow = shadow.reduce(4).filter(ImageFilter.GaussianBlur(radius / 48)).resize(disc.size)
    shadow = ImageChops.multiply(shadow, disc).point([level * 5 // 6 for level in range(256)])
    c.image.paste((4, 4, 12), (0, 0), shadow)

    def rings(draw: ImageDraw.ImageDraw) -> None:
        for n in range(5):
            wide, flat = radius * (1.3 + n * 0.12), radius * (0.25 + n * 0.025)
            box = (x - wide, y - flat, x + wide, y + flat)
            draw.arc(box, -14, 194, fill=210 - n * 25, width=max(2, round(radius * 0.035)))

    if radius > c.h * 0.15 and c.rng.random() < 0.6:
        c.layer([_rgb(hue + 0.08, 0.8, 0.5)], rings)


def _aurora(c: _Canvas) -> None:
    night = [_rgb(c.hue + 0.08, 0.04, 0.6), _rgb(c.hue, 0.13, 0.5), _rgb(c.hue, 0.2, 0.4)]
    c.image = _gradient(night, *c.image.size)
    c.lamp, c.near, c.haze = _rgb(0.14, 0.92, 0.5), _rgb(c.hue, 0.04, 0.5), _rgb(c.hue, 0.22, 0.3)
    _stars(c, 140)
    hue = c.rng.choice((0.36, 0.42, 0.78, 0.5))
    for n in range(3):
        _curtain(c, hue + n * 0.07, 0.14 + 0.1 * n)
    c.ground(c.depth(0.6), c.line(0.8, 0.08, 0.5))
    _trees(c, 1.0, 0.95, 0.12)


def _curtain(c: _Canvas, hue: float, top: float) -> None:
    """A waving band of light, drawn small and scaled up."""
    w, h = 160, 120
    line, levels = c.line(top, 0.12, 0.45), bytearray(w * h)
    for x in range(w):
        start = line[x * (len(line) - 1) // w][1] / c.h * h
        ray = 0.65 + 0.35 * math.sin(x * 0.55 + top * 40) * math.sin(x * 0.21)
        for y in range(max(0, math.ceil(start)), h):
            fall = (y - start) / (h * 0.42)
            levels[y * w + x] = int(200 * ray * min(1.0, fall * 9) * max(0.0, 1 - fall) ** 1.6)
    mask = Image.frombytes("L", (w, h), bytes(levels))
    mask = mask.resize(c.image.size, Image.Resampling.BICUBIC)
    c.image.paste(_rgb(hue, 0.6, 0.75), (0, 0), mask)


_SCENES: dict[str, Callable[[_Canvas], None]] = {
    "aurora": _aurora,
    "city": _city,
    "dunes": _dunes,
    "forest": _forest,
    "hills": _hills,
    "planets": _planets,
    "sea": _sea,
}
