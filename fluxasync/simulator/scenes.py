"""Small landscapes and abstractions: the pictures of the practice server, painted with pillow.

A prompt's words pick the scene where they say something (sea, city, space, … in a few languages),
else its hash does. Each scene is one function that lays its layers from far to near. Knows no
file format. Large pictures are painted small and scaled up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .easel import Easel, circle, glow, gradient, grained, hls, mixed, told

_MOST_PIXELS = 1_100_000  # beyond, paint smaller and scale up

_WORDS = {
    "sea": ("sea", "ocean", "lake", "boat", "whale", "harbour", "lighthouse", "meer", "mer", "海"),
    "city": ("city", "street", "neon", "tokyo", "robot", "train", "stadt", "ville", "ciudad", "都"),
    "forest": ("forest", "tree", "fox", "deer", "wood", "owl", "wald", "forêt", "bosque", "森"),
    "dunes": ("desert", "sand", "dune", "camel", "mars", "wüste", "désert", "desierto", "砂"),
    "planets": ("planet", "space", "galaxy", "astronaut", "cosmos", "moon", "rocket", "宇"),
    "aurora": ("aurora", "northern", "glow", "dream", "spirit", "magic", "traum", "rêve", "夢"),
    "discs": ("flower", "garden", "bubble", "portrait", "still", "fruit", "abstract", "花"),
}


def paint(prompt: str, seed: int, width: int, height: int) -> Image.Image:
    """Return the picture for a prompt and a seed, in the size asked."""
    shrink = max(1.0, math.sqrt(width * height / _MOST_PIXELS))
    easel = Easel(prompt, seed, max(16, round(width / shrink)), max(16, round(height / shrink)))
    _SCENES[told(prompt, _WORDS) or easel.character.choice(sorted(_SCENES))](easel)
    picture = grained(easel.picture)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return picture


def _lamp(easel: Easel, *, low: float = 0.12, high: float = 0.45) -> tuple[float, float, float]:
    """The sun or the moon with its glow; returns its place and radius at single size."""
    across = easel.width * easel.dice.uniform(0.15, 0.85)
    down = easel.height * easel.dice.uniform(low, high)
    radius = min(easel.width, easel.height) * easel.dice.uniform(0.045, 0.11)
    reach = round(radius * easel.dice.uniform(5, 9))
    halo = glow(0.55 if easel.dark else 0.8).resize((reach * 2, reach * 2))
    easel.picture.paste(easel.lamp, (round(across - reach), round(down - reach)), halo)
    disc = circle(across, down, radius)
    mask = easel.mask(lambda draw: draw.ellipse(disc, fill=255))
    if easel.dark and easel.dice.random() < 0.6:
        bite = circle(across + radius * 0.5, down - radius * 0.25, radius * 0.9)
        mask = ImageChops.subtract(mask, easel.mask(lambda draw: draw.ellipse(bite, fill=255)))
    easel.lay([easel.lamp], mask)
    return across, down, radius


def _stars(easel: Easel) -> None:
    draw = ImageDraw.Draw(easel.picture)
    dice, unit = easel.dice, max(1, min(easel.width, easel.height) // 500)
    for _ in range(140):
        x, y = dice.randrange(easel.width), round(easel.height * 0.7 * dice.random() ** 1.4)
        size = unit if dice.random() < 0.9 else unit * 2
        draw.ellipse(
            (x, y, x + size, y + size), fill=mixed(easel.sky[0], easel.lamp, dice.random())
        )


def _sky(easel: Easel) -> None:
    if easel.dark:
        _stars(easel)
    _lamp(easel)
    if not easel.dark and easel.dice.random() < 0.7:
        _clouds(easel)


def _clouds(easel: Easel) -> None:
    dice, w, h = easel.dice, easel.width // 4, easel.height // 4
    mask = Image.new("L", (w, h))
    draw = ImageDraw.Draw(mask)
    for _ in range(dice.randint(3, 7)):
        x, y, long = dice.uniform(0, w), dice.uniform(0.05, 0.45) * h, dice.uniform(0.08, 0.25) * w
        for _ in range(7):
            dx, r = dice.uniform(-long, long), dice.uniform(0.02, 0.05) * h
            draw.ellipse((x + dx - r * 5, y - r, x + dx + r * 5, y + r), fill=dice.randint(60, 150))
    soft = mask.filter(ImageFilter.GaussianBlur(max(1, h // 60)))
    white = mixed(easel.sky[-1], (255, 255, 255), 0.6)
    easel.picture.paste(white, (0, 0), soft.resize(easel.picture.size))


def _skyline(easel: Easel, base: float, rise: float, rough: float) -> list[tuple[float, float]]:
    """A ridge as points at double size."""
    waves = [
        (easel.dice.uniform(0.6, 1.5) * 1.9**octave, easel.dice.uniform(0, math.tau), rough**octave)
        for octave in range(6)
    ]
    total = sum(weight for _, _, weight in waves)
    width, height = easel.width * 2, easel.height * 2
    points, step = [], max(2, width // 400)
    for x in range(0, width + step, step):
        turn = x / width * math.tau
        wave = sum(math.sin(turn * freq + phase) * weight for freq, phase, weight in waves)
        points.append((float(x), height * (base - rise * wave / total)))
    return points


def _ridge(easel: Easel, share: float, base: float, rise: float, rough: float) -> None:
    points = _skyline(easel, base, rise, rough)
    outline = [*points, (easel.width * 2.0, easel.height * 2.0), (0.0, easel.height * 2.0)]
    colour = easel.depth(share)
    mist = mixed(colour, easel.haze, 0.55 * (1 - share * 0.6))
    easel.lay([colour, mist], easel.mask(lambda draw: draw.polygon(outline, fill=255)))


def _hills(easel: Easel) -> None:
    _sky(easel)
    count = easel.dice.randint(4, 6)
    horizon = easel.dice.uniform(0.45, 0.6)
    rough = easel.dice.uniform(0.35, 0.62)
    for n in range(count):
        share = (n + 1) / count
        base = horizon + (0.95 - horizon) * n / count
        _ridge(easel, share, base, easel.dice.uniform(0.09, 0.2) * (1.1 - share * 0.5), rough)


def _dunes(easel: Easel) -> None:
    _sky(easel)
    easel.near = mixed(easel.near, hls(0.07, 0.4, 0.6), 0.75)
    easel.haze = mixed(easel.haze, hls(0.1, 0.8, 0.6), 0.5)
    horizon = easel.dice.uniform(0.5, 0.62)
    for n in range(5):
        _ridge(easel, (n + 1) / 5, horizon + 0.09 * n, 0.06 + 0.025 * n, 0.12)


def _forest(easel: Easel) -> None:
    _sky(easel)
    horizon = easel.dice.uniform(0.42, 0.55)
    _ridge(easel, 0.15, horizon, 0.16, 0.5)
    for n, share in enumerate((0.4, 0.7, 1.0)):
        _trees(easel, share, horizon + 0.14 + n * 0.15, 0.13 + 0.09 * n)


def _trees(easel: Easel, share: float, base: float, tall: float) -> None:
    """A row of firs on a low ridge."""
    points = _skyline(easel, base, 0.04, 0.3)
    width, height, dice = easel.width * 2, easel.height * 2, easel.dice

    def draw_all(draw: ImageDraw.ImageDraw) -> None:
        draw.polygon([*points, (width, height), (0, height)], fill=255)
        x = -width * 0.02
        while x < width:
            ground = points[min(len(points) - 1, max(0, int(x / width * len(points))))][1] + 6
            _fir(draw, x, ground, height * tall * dice.uniform(0.45, 1.1))
            x += height * tall * dice.uniform(0.1, 0.4)

    colour = easel.depth(share)
    mist = mixed(colour, easel.haze, 0.5 * (1 - share))
    easel.lay([colour, mist], easel.mask(draw_all))


def _fir(draw: ImageDraw.ImageDraw, x: float, ground: float, tall: float) -> None:
    for n in range(4):
        tip = ground - tall * (1 - n * 0.2)
        foot = tip + tall * 0.42
        half = tall * (0.07 + 0.045 * n)
        draw.polygon([(x, tip), (x - half, foot), (x + half, foot)], fill=255)
    draw.rectangle((x - tall * 0.02, ground - tall * 0.1, x + tall * 0.02, ground), fill=255)


def _sea(easel: Easel) -> None:
    if easel.dark:
        _stars(easel)
    across, _, radius = _lamp(easel, low=0.2, high=0.42)
    horizon = easel.dice.uniform(0.5, 0.6)
    if easel.dice.random() < 0.6:
        _ridge(easel, 0.3, horizon, 0.05, 0.4)
    water = (0, round(easel.height * horizon * 2), easel.width * 2, easel.height * 2)
    deep = mixed(easel.near, hls(easel.hue, 0.25, 0.6), 0.5)
    mask = easel.mask(lambda draw: draw.rectangle(water, fill=255))
    easel.lay([mixed(easel.sky[-1], deep, 0.25), mixed(easel.sky[1], deep, 0.6), deep], mask)
    _glitter(easel, across, radius, horizon)
    for n in range(3):
        share = 0.6 + 0.2 * n
        _swell(easel, share, horizon + 0.2 + 0.11 * n)
    if easel.dice.random() < 0.7:
        _sail(easel, horizon)


def _glitter(easel: Easel, across: float, radius: float, horizon: float) -> None:
    dice, width = easel.dice, easel.width * 2
    top, height = easel.height * 2 * horizon, easel.height * 2 * (1 - horizon)

    def draw_all(draw: ImageDraw.ImageDraw) -> None:
        for n in range(46):
            y = top + height * (n / 46) ** 1.4 + 2
            half = radius * dice.uniform(0.3, 1.6) * (0.7 + n / 30)
            x = across * 2 + dice.uniform(-1, 1) * radius * (0.6 + n / 20)
            thick = max(1.0, width * 0.0008 * (1 + n / 8))
            draw.ellipse((x - half, y - thick, x + half, y + thick), fill=dice.randint(90, 230))

    easel.lay([easel.lamp], easel.mask(draw_all))


def _swell(easel: Easel, share: float, base: float) -> None:
    points = _skyline(easel, base, 0.018, 0.45)
    outline = [*points, (easel.width * 2.0, easel.height * 2.0), (0.0, easel.height * 2.0)]
    mask = easel.mask(lambda draw: draw.polygon(outline, fill=170))
    deep = mixed(easel.near, hls(easel.hue, 0.2, 0.6), 0.5)
    easel.lay([mixed(easel.sky[1], deep, share), deep], mask)


def _sail(easel: Easel, horizon: float) -> None:
    dice, tall = easel.dice, easel.height * 2 * easel.dice.uniform(0.06, 0.16)
    x, y = easel.width * 2 * dice.uniform(0.15, 0.85), easel.height * 2 * (horizon + 0.07)
    hull = [(x - tall * 0.35, y), (x + tall * 0.35, y), (x + tall * 0.22, y + tall * 0.14)]
    hull.append((x - tall * 0.25, y + tall * 0.14))
    sails = [(x, y - tall), (x, y - tall * 0.06), (x - tall * 0.3, y - tall * 0.06)]
    jib = [(x + tall * 0.03, y - tall * 0.9), (x + tall * 0.03, y - tall * 0.06)]
    jib.append((x + tall * 0.3, y - tall * 0.06))
    cloth = easel.lamp if easel.dark else (250, 246, 238)
    easel.lay([cloth], easel.mask(lambda draw: draw.polygon(sails, fill=255)))
    easel.lay([cloth], easel.mask(lambda draw: draw.polygon(jib, fill=255)))
    easel.lay([easel.near], easel.mask(lambda draw: draw.polygon(hull, fill=255)))


def _city(easel: Easel) -> None:
    _sky(easel)
    for n, share in enumerate((0.25, 0.55, 0.95)):
        _blocks(easel, share, 0.42 + 0.12 * n)


def _blocks(easel: Easel, share: float, roof: float) -> None:
    """A row of towers; near ones have windows, lit at night."""
    dice, width, height = easel.dice, easel.width * 2, easel.height * 2
    towers, x = [], -width * dice.uniform(0.0, 0.05)
    while x < width:
        wide = width * dice.uniform(0.035, 0.1) * (0.7 + share * 0.6)
        towers.append((x, height * (roof + dice.uniform(-0.16, 0.16)), x + wide, float(height)))
        x += wide + width * dice.choice((0.0, 0.004, 0.012))

    def draw_all(draw: ImageDraw.ImageDraw) -> None:
        for left, top, right, bottom in towers:
            draw.rectangle((left, top, right, bottom), fill=255)
            if dice.random() < 0.25:
                middle = (left + right) / 2
                draw.rectangle((middle - 2, top - height * 0.06, middle + 2, top), fill=255)

    colour = easel.depth(share)
    mist = mixed(colour, easel.haze, 0.5)
    easel.lay([colour, mist], easel.mask(draw_all))
    if share > 0.4:
        easel.lay([easel.lamp], easel.mask(lambda draw: _windows(easel, draw, towers, share)))


def _windows(
    easel: Easel,
    draw: ImageDraw.ImageDraw,
    towers: Sequence[tuple[float, float, float, float]],
    share: float,
) -> None:
    dice, pane = easel.dice, easel.width * 2 * 0.006 * (0.6 + share * 0.5)
    chance, bright = (0.5, 235) if easel.dark else (0.3, 110)
    for left, top, right, bottom in towers:
        y = top + pane * 1.5
        while y < min(bottom, top + easel.height * 1.1):
            x = left + pane
            while x + pane < right:
                if dice.random() < chance:
                    draw.rectangle((x, y, x + pane * 0.7, y + pane), fill=dice.randint(60, bright))
                x += pane * 1.7
            y += pane * 2.2


def _planets(easel: Easel) -> None:
    space = easel.dice.choice((0.6, 0.66, 0.75, 0.9))
    deep, veil = hls(space, 0.05, 0.6), hls(space + 0.08, 0.19, 0.55)
    easel.picture = gradient([deep, veil, deep], easel.width, easel.height)
    easel.dark = True
    _stars(easel)
    _stars(easel)
    dice, unit = easel.dice, min(easel.width, easel.height)
    for _ in range(dice.randint(1, 3)):
        place = (easel.width * dice.random(), easel.height * dice.random())
        _globe(easel, *place, unit * dice.uniform(0.03, 0.09), dice.random())
    across, down = easel.width * dice.uniform(0.25, 0.75), easel.height * dice.uniform(0.3, 0.75)
    _globe(easel, across, down, unit * dice.uniform(0.2, 0.36), dice.random())


def _globe(easel: Easel, across: float, down: float, radius: float, hue: float) -> None:
    """A planet in stripes, in the shade on one side, some with rings."""
    dice = easel.dice
    box = circle(across, down, radius)
    disc = easel.mask(lambda draw: draw.ellipse(box, fill=255))
    stripes = [hls(hue + dice.uniform(-0.05, 0.05), dice.uniform(0.4, 0.75), 0.5) for _ in range(9)]
    layer = Image.new("RGB", easel.picture.size)
    size = max(2, round(radius * 2))
    layer.paste(gradient(stripes, size, size), (round(across - radius), round(down - radius)))
    easel.picture.paste(layer, (0, 0), disc)
    lit = circle(across - radius * 0.35, down - radius * 0.3, radius * 1.15)
    shade = ImageChops.subtract(disc, easel.mask(lambda draw: draw.ellipse(lit, fill=255)))
    soft = shade.resize((easel.width // 4, easel.height // 4)).filter(
        ImageFilter.GaussianBlur(radius / 24)
    )
    soft = ImageChops.multiply(soft.resize(easel.picture.size), disc)
    easel.picture.paste((4, 4, 12), (0, 0), soft.point([level * 5 // 6 for level in range(256)]))
    if radius > easel.height * 0.15 and dice.random() < 0.6:
        _rings(easel, across, down, radius, hue)


def _rings(easel: Easel, across: float, down: float, radius: float, hue: float) -> None:
    def draw_all(draw: ImageDraw.ImageDraw) -> None:
        for n in range(5):
            wide, flat = radius * (2.6 + n * 0.24), radius * (0.5 + n * 0.05)
            box = (across * 2 - wide, down * 2 - flat, across * 2 + wide, down * 2 + flat)
            draw.arc(box, -14, 194, fill=210 - n * 25, width=max(2, round(radius * 0.07)))

    easel.lay([hls(hue + 0.08, 0.8, 0.5)], easel.mask(draw_all))


def _aurora(easel: Easel) -> None:
    easel.dark = True
    night = [
        hls(easel.hue + 0.08, 0.04, 0.6),
        hls(easel.hue, 0.13, 0.5),
        hls(easel.hue, 0.2, 0.4),
    ]
    easel.picture = gradient(night, easel.width, easel.height)
    easel.lamp, easel.near = hls(0.14, 0.92, 0.5), hls(easel.hue, 0.04, 0.5)
    easel.haze = hls(easel.hue, 0.22, 0.3)
    _stars(easel)
    first = easel.dice.choice((0.36, 0.42, 0.78, 0.5))
    for n in range(3):
        _curtain(easel, first + n * 0.07, 0.14 + 0.1 * n)
    _ridge(easel, 0.6, 0.8, 0.08, 0.5)
    _trees(easel, 1.0, 0.95, 0.12)


def _curtain(easel: Easel, hue: float, top: float) -> None:
    """A waving band of light, drawn small and stretched."""
    w, h = 160, 120
    points = _skyline(easel, 0.0, 0.12, 0.45)
    mask = Image.new("L", (w, h))
    rows = mask.load()
    for x in range(w):
        wave = points[x * (len(points) - 1) // w][1] / (easel.height * 2)
        ray = 0.65 + 0.35 * math.sin(x * 0.55 + top * 40) * math.sin(x * 0.21)
        start = (top + wave) * h
        for y in range(max(0, int(start)), h):
            fall = (y - start) / (h * 0.42)
            if rows is not None and 0 <= fall < 1:
                rows[x, y] = int(200 * ray * min(1.0, fall * 9) * (1 - fall) ** 1.6)
    mask = mask.resize(easel.picture.size, Image.Resampling.BICUBIC)
    easel.picture.paste(hls(hue, 0.6, 0.75), (0, 0), mask)


def _discs(easel: Easel) -> None:
    """Translucent circles over a gradient."""
    dice, unit = easel.dice, min(easel.width, easel.height)
    base = dice.random()
    ground = [hls(base, 0.9, 0.5), hls(base + 0.08, 0.8, 0.55), hls(base + 0.16, 0.7, 0.5)]
    easel.picture = gradient(ground, easel.width, easel.height)
    for _ in range(4):
        hue = base + dice.choice((0.0, 0.08, 0.16, 0.5, 0.55))
        group = [
            circle(
                dice.uniform(0, easel.width), dice.uniform(0, easel.height),
                unit * dice.choice((0.05, 0.1, 0.16, 0.28)),
            )
            for _ in range(dice.randint(3, 5))
        ]  # fmt: skip
        ring = dice.random() < 0.35

        def draw_all(
            draw: ImageDraw.ImageDraw,
            group: list[tuple[float, float, float, float]] = group,
            ring: bool = ring,
        ) -> None:
            for box in group:
                if ring:
                    draw.ellipse(box, outline=220, width=max(3, unit // 60))
                else:
                    draw.ellipse(box, fill=150)

        easel.lay([hls(hue, 0.66, 0.7), hls(hue + 0.06, 0.45, 0.65)], easel.mask(draw_all))


_SCENES: dict[str, Callable[[Easel], None]] = {
    "aurora": _aurora,
    "city": _city,
    "discs": _discs,
    "dunes": _dunes,
    "forest": _forest,
    "hills": _hills,
    "planets": _planets,
    "sea": _sea,
}
