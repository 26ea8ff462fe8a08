"""A page of figures as a browser parses it."""

from __future__ import annotations

from base64 import b64decode
from html.parser import HTMLParser

#: the elements of a page
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2",
    "h3", "p", "b", "small", "span", "div", "dl", "dt", "dd", "figure", "img", "figcaption",
    "table", "thead", "tbody", "tfoot", "tr", "th", "td", "details", "summary", "ul", "li", "pre",
    "button", "script", "svg", "rect", "code",
}  # fmt: skip
#: the elements of a chart
SVG_TAGS = {
    "svg", "metadata", "rdf:rdf", "cc:work", "dc:type", "dc:format", "dc:creator", "cc:agent",
    "dc:title", "defs", "style", "g", "path", "text", "tspan", "use", "clippath", "rect",
}  # fmt: skip
CHART, THUMBNAIL = "data:image/svg+xml;base64,", "data:image/webp;base64,"
_ADDRESSES = ("href", "src", "srcset", "xlink:href", "action", "data", "poster")


class Tree(HTMLParser):
    """Tags, attributes and texts of a page, or of a chart in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.charts: dict[str, str] = {}  #: title → the content in words
        self.words: list[str] = []
        self.hovers: list[str] = []  #: texts under the pointer
        self._is_hover = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in _ADDRESSES:
                self.links.add(value or "")
        self._is_hover = tag == "title" and "rect" in self.tags
        given = dict(attrs)
        if tag == "img" and (given["src"] or "").startswith(CHART):
            title, _, description = (given["alt"] or "").partition(": ")
            self.charts[title] = description

    def handle_data(self, data: str) -> None:
        (self.hovers if self._is_hover else self.words).append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_hover = False

    def svgs(self) -> list[str]:
        """Return the charts."""
        charts = [link for link in self.links if link.startswith(CHART)]
        return [b64decode(link.removeprefix(CHART)).decode() for link in charts]

    def strays(self) -> list[str]:
        """Return what a page of figures must not have: other tags, handlers, addresses."""
        found = [f"<{tag}>" for tag in self.tags - TAGS]
        found += [name for name in self.attributes if name.startswith("on") or name == "style"]
        found += [link for link in self.links if not link.startswith((CHART, THUMBNAIL))]
        for svg in map(Tree, self.svgs()):
            found += [f"<{tag}> in a chart" for tag in svg.tags - SVG_TAGS]
            found += [name for name in svg.attributes if name.startswith("on")]
            found += [link for link in svg.links if not link.startswith("#")]
        return found
