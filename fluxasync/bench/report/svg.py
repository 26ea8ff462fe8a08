"""A drawing made fit to stand inside a page: no style of its own, no id of another's.

Matplotlib writes colours into `style` attributes. A page with a strict policy obeys none of those,
and they would look the same by night; so every colour of `PALETTE` becomes a class whose colour
the page's style sheet decides, and the rest becomes plain attributes. Ids get a prefix, because
several drawings in one page share one name space. This room draws nothing and knows no benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET

from ..._core.text import display

#: what drawings may be coloured with: a name in the style sheet, and the colour that stands for it
#: until then (a drawing looks right by itself, too)
PALETTE: Mapping[str, str] = {
    "ink": "#1f2328", "quiet": "#59636e", "grid": "#e3e6ea", "paper": "#fefefe",
    "c0": "#0b63c5", "c1": "#c2570c", "c2": "#128a4a", "c3": "#8d3fb8", "c4": "#b8860b",
    "c5": "#c4314b", "c6": "#0f7f86", "c7": "#6b7480",
}  # fmt: skip

_NAMES = {colour: name for name, colour in PALETTE.items()}
_CLASSES = {"fill": "f", "stroke": "s"}
_FONT = re.compile(r"(?:(\d{3}) )?([\d.]+)px")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
#: XML holds neither, and `display` lets them pass
_NO_XML = re.compile("[\ufffe\uffff]")
_DROPPED = {"metadata", "style"}
#: declarations that a page decides or that mean nothing there
_UNSAID = {"font-family", "text-align"}


def plain(text: object, width: int | None = None) -> str:
    """Return any text as one inert line that XML, HTML and a terminal can all hold."""
    return _NO_XML.sub("·", display(str(text), width))


def inline(svg: str, *, prefix: str, title: str, description: str, kind: str = "") -> str:
    """Return a drawing of matplotlib as an `<svg>` element for a page.

    `prefix` makes its ids its own, `title` and `description` are what a screen reader says, and
    `kind` is a further class; all of them texts that XML can hold.
    """
    root = ET.fromstring(svg)  # noqa: S314 — made by matplotlib in this process a moment ago
    _bare(root)
    _prune(root)
    for element in root.iter():
        _unstyled(element)
        _renamed(element, prefix)
    box = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    root.attrib |= {
        "viewBox": box,
        "class": f"plot {kind}".strip(),
        "role": "img",
        "aria-labelledby": f"{prefix}-title {prefix}-desc",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        spoken = ET.Element(tag, {"id": f"{prefix}-{tag}"})
        spoken.text = text
        root.insert(place, spoken)
    return ET.tostring(root, encoding="unicode")


def rules(colours: Mapping[str, str]) -> str:
    """Return the style sheet's lines that give every colour of the palette its present value."""
    return "\n".join(
        f".plot .{short}-{name}{{{prop}:{colours[name]}}}"
        for name in PALETTE
        for prop, short in _CLASSES.items()
    )


def _bare(root: ET.Element) -> None:
    """Drop the namespaces: inside HTML an `<svg>` needs none."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in [name for name in element.attrib if name.startswith("{")]:
            element.set(name.rpartition("}")[2], element.attrib.pop(name))


def _prune(element: ET.Element) -> None:
    for child in list(element):
        if child.tag in _DROPPED:
            element.remove(child)
        else:
            _prune(child)


def _unstyled(element: ET.Element) -> None:
    classes: list[str] = []
    for name, value in [*_declarations(element.attrib.pop("style", "")), *_painted(element)]:
        colour = _NAMES.get(value.lower()) if name in _CLASSES else None
        if colour is not None:
            classes.append(f"{_CLASSES[name]}-{colour}")
        elif name == "font":
            _set_font(element, value)
        elif name not in _UNSAID:
            element.set(name, value)
    if classes:
        element.set("class", " ".join(classes))


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _painted(element: ET.Element) -> Iterator[tuple[str, str]]:
    """Take the colours that stand in attributes already."""
    for name in _CLASSES:
        if name in element.attrib:
            yield name, element.attrib.pop(name)


def _set_font(element: ET.Element, value: str) -> None:
    if found := _FONT.search(value):
        weight, size = found.groups()
        element.set("font-size", size)
        if weight and weight != "400":
            element.set("font-weight", weight)


def _renamed(element: ET.Element, prefix: str) -> None:
    for name, value in element.attrib.items():
        if name == "id":
            element.set(name, f"{prefix}-{value}")
        elif name == "href":
            element.set(name, f"#{prefix}-{value.removeprefix('#')}")
        elif "url(#" in value:
            element.set(name, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))
