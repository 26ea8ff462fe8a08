"""Marks in prompts that belong to other tools, and that Flux would read as text.

Nothing is changed here. How many prompts of a list have marks decides between a warning and a
refusal: see `SyntaxCheck`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import frozen

from ..._core.errors import ConfigError
from .templates import structured

logger = logging.getLogger("fluxasync")

_SHOWN = 60  #: characters of a prompt that a message shows


class Syntax(Enum):
    """How the text of a list is read: the `syntax` of `Prompts`."""

    CHECKED = "checked"  #: marks of other tools are named
    AS_WRITTEN = "as-written"  #: everything is sent
    COMMENTS = "comments"  #: lines that start with # or // are left out
    SAMPLE_PROMPTS = "sample-prompts"  #: a line is a prompt and options, as --w 768 --d 7


@frozen
class Mark:
    """One kind of mark, and what it is for people."""

    what: str
    sign: str  #: text that is in each such mark; looking for it costs a tenth of the pattern
    pattern: re.Pattern[str]

    def is_in(self, prompt: str) -> bool:
        return self.sign in prompt and self.pattern.search(prompt) is not None


def _mark(what: str, sign: str, pattern: str, flags: int = 0) -> Mark:
    return Mark(what, sign, re.compile(pattern, flags))


COMMENTS, OPTIONS, TEMPLATES, ROWS = "comments", "options", "templates", "rows of JSON"
TABLE, PLACEHOLDERS = "the first row of a table", "placeholders"

#: long names of options: kohya-ss/sd-scripts docs/train_network (sample prompts), Midjourney's
#: parameter list, and AUTOMATIC1111's "Prompts from file or textbox"; all read 2026-11-29
_LONG = (
    "ar|aspect|chaos|cref|cw|draft|exp|fast|hd|iw|niji|no|oref|ow|personalize|profile|quality|raw|"
    "relax|repeat|seed|sref|stealth|stop|style|stylize|sv|sw|test|testp|tile|turbo|uplight|upbeta|"
    "version|video|weird|ctr|nf|fs|am|ss|cn|"
    "prompt|negative[-_]prompt|width|height|steps|cfg[-_]scale|sampler[-_]name|sampler[-_]index|"
    "batch[-_]size|n[-_]iter|outpath[-_]samples|outpath[-_]grids|styles|subseed|"
    "subseed[-_]strength|guidance|model"
)
_JSON_ROW = _mark(
    ROWS, '"prompt', r'\A[\[{]\s*(?:\{\s*)?(?:"\w+"\s*:[^{}\[\]]{0,2000},\s*)?"prompts?"\s*:'
)
#: of a line of text, which is a prompt
_OF_LINES = (
    _mark(COMMENTS, "", r"\A(?:(?:#|//|;;)\s+\S|#{2,}\s+\S|/\*|<!--)"),
    _JSON_ROW,
    _mark(ROWS, "", r'\A(?:"prompts?"\s*:|[\[\]{}],?$)'),
    _mark(
        "YAML", "", r"\A(?:(?:- )?(?:prompts?|captions?|text|negative_prompt)\s*:(?:\s|$)|---\s*$)"
    ),
    _mark("Markdown", "", r"\A(?:```|~~~|\|.*\|\s*$)"),
)
#: how the lines of those begin; most prompts do not
_BEGINNING = re.compile(r'[#/;<"\[\]{}`~|-]|prompt|caption|text|negative')
#: names of columns: the first line of a table that is named .txt has one of each
_PROMPT_NAMES = frozenset(("prompt", "prompts", "caption", "captions"))
_OTHER_NAMES = frozenset(
    ("seed", "width", "height", "size", "model", "steps", "guidance", "cfg", "id", "name", "n",
     "index", "image", "image_url", "url", "file", "file_name", "negative_prompt", "style",
     "category", "split", "aspect_ratio")
)  # fmt: skip
#: of any prompt
_OF_PROMPTS = (
    _mark(OPTIONS, "--", rf"--(?<!\S--)(?:[a-z](?=\s+\S)|q|v|(?:{_LONG})(?![\w-]))(?:[\s=]|$)"),
    _mark(OPTIONS, ": ", r"^(?:Negative prompt: |Steps: \d+, )", re.MULTILINE),
    _mark(OPTIONS, "/imagine", r"\A/imagine\b"),
    _mark(OPTIONS, "###", r"\S\s+###\s+\S"),  # a negative prompt after it
)
#: of a prompt that is not read as a template
_OF_TEMPLATES = (
    _mark(TEMPLATES, "__", r"(?<!\w)__[~@!]?[^\W_](?:(?!__)[^\n])*?__(?!\w)"),
    _mark(TEMPLATES, "{", r"\{(?:[^{}\n|$]|\$(?!\$))*(?:\||\$\$)[^{}\n]*\}"),
    _mark(TEMPLATES, "${", r"\$\{[A-Za-z_][\w-]*\s*[=:}?]"),
    _mark(PLACEHOLDERS, "{", r"\{%|\{\{[^{}\n]+\}\}"),
)
#: ":1.2"; without a way back, so that a long run of digits takes no long time
_WEIGHT = r"\s*+:\s*+(?:\d++(?:\.\d++)?|\.\d++)\s*+"
#: read by AUTOMATIC1111's web UI and its relatives
#: (github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features, read 2026-11-29)
WEBUI_MARKS = (
    _mark("a network", "<", r"<(?:lora|lyco|hypernet|embedding):[^<>\n]{1,200}>", re.IGNORECASE),
    _mark("emphasis", "(", rf"\([^()\n]{{0,400}}[^\d\s()\\]{_WEIGHT}\)"),
    _mark("emphasis", "((", r"\(\([^()\n]{1,400}\)\)"),
    _mark("a schedule", "[", rf"\[[^\[\]\n]{{0,400}}[^\d\s\[\]\\]{_WEIGHT}\]"),
    _mark("an alternation", "[", r"\[[^\[\]|\n]{1,400}\|[^\[\]\n]{0,400}\]"),
    _mark("a separator", "BREAK", r"\bBREAK\b"),
    _mark("a separator", "AND", r"\bAND\b(?=[^\n]{0,400}:\s*\d+\.\d)"),
)
#: text that Flux reads well enough, so that it is never refused
_REMARKS = (
    _mark("a number or bullet of a list", "", r"\A(?:\d{1,4}[.)]|[-*•])\s+\S"),
    _mark("a weight of Midjourney", "::", r"\w::\s?-?\d"),
    *WEBUI_MARKS,
)
_ADVICE = {
    COMMENTS: "--syntax comments leaves out lines that start with # or //",
    OPTIONS: "--syntax sample-prompts reads --w --h --s --l --d (kohya)",
    TEMPLATES: "--wildcards DIR makes all choices",
    PLACEHOLDERS: "fill them in first (--prompt '{colour} fox' does it from the columns of a list)",
    ROWS: "name the file .jsonl",
    TABLE: "name the file .csv or .tsv",
    "YAML": "convert it to .jsonl",
    "Markdown": "remove the markup",
}


_OF_COLUMNS = "give them as columns (width, height, seed, …)"


class SyntaxCheck:
    """Counts the prompts of one list that have marks of other tools, in constant memory.

    With `refuses`, a list of which at least half of the prompts have such marks is an error; in
    every other list they are a warning. Emphasis and its like are always only a warning.
    """

    def __init__(self, *, refuses: bool, templates_are_read: bool = False) -> None:
        self._refuses = refuses
        self._of_prompts = _OF_PROMPTS + (() if templates_are_read else _OF_TEMPLATES)
        self._remarks = _REMARKS[:2] if templates_are_read else _REMARKS
        self._prompts = 0
        self._marked = 0
        self._remarked = 0
        self._kinds: dict[str, None] = {}
        self._remarked_kinds: dict[str, None] = {}
        self._last = ""  #: a prompt with a mark, whose place is not known yet
        self._last_remark = ""
        self._first = ""  #: the first prompt with a mark, and its place
        self._first_remark = ""
        self._has_lines = False  #: some prompts are lines of text
        self._is_table = False  #: its first line names columns
        self._before = self._counts()  #: without the row that is read now
        self._has_warned = False

    def look(self, prompt: str, *, is_line: bool) -> None:
        """Count a prompt; `is_line`: it is a line of text, not a field of a row."""
        self._prompts += 1
        self._has_lines = self._has_lines or is_line
        self._last = self._last_remark = ""
        if is_line and self._prompts == 1 and _names_columns(prompt):
            self._is_table = True
            self._mark(prompt, {TABLE: None})
        elif prompt[:1] in ("{", "[") and structured(prompt) is not None:
            if is_line and _JSON_ROW.is_in(prompt):  # the braces of a JSON prompt are no choices
                self._mark(prompt, {ROWS: None})
        else:
            self._look_for_marks(prompt, is_line)

    def look_again(self, prompt: str) -> None:
        """Look at the prompt that a template made of the one that was looked at last."""
        if not self._last:
            self._look_for_marks(prompt, False)

    def look_for_columns(self, prompt: str, row: Mapping[str, Any]) -> None:
        """Look for `{colour}` in the prompt that was looked at last, where the row has a colour."""
        extras = row.get("extras")
        names = [*row, *(extras if isinstance(extras, Mapping) else ())]
        if not self._last and any(f"{{{name}}}" in prompt for name in names):
            self._mark(prompt, {PLACEHOLDERS: None})

    def _look_for_marks(self, prompt: str, is_line: bool) -> None:
        kinds = [m.what for m in self._of_prompts if m.sign in prompt and m.is_in(prompt)]
        if is_line and _BEGINNING.match(prompt):
            kinds = [mark.what for mark in _OF_LINES if mark.is_in(prompt)] + kinds
        if kinds:
            self._mark(prompt, dict.fromkeys(kinds))
            return
        for mark in self._remarks:
            if mark.sign in prompt and mark.is_in(prompt):
                self._remarked += 1
                self._remarked_kinds = {**self._remarked_kinds, mark.what: None}
                self._last_remark = prompt
                return

    def _mark(self, prompt: str, kinds: dict[str, None]) -> None:
        self._marked += 1
        self._kinds = self._kinds | kinds
        self._last = prompt

    def begin(self) -> None:
        """Begin a row, which `forget` leaves out if it is bad."""
        self._before = self._counts()
        self._last = self._last_remark = ""

    def forget(self) -> None:
        """Leave out the row that was begun: it is bad."""
        (
            self._prompts, self._marked, self._remarked, self._kinds, self._remarked_kinds,
            self._has_lines, self._is_table,
        ) = self._before  # fmt: skip
        self._last = self._last_remark = ""

    def _counts(self) -> tuple[int, int, int, dict[str, None], dict[str, None], bool, bool]:
        return (
            self._prompts, self._marked, self._remarked, self._kinds, self._remarked_kinds,
            self._has_lines, self._is_table,
        )  # fmt: skip

    @property
    def has_news(self) -> bool:
        """Whether the prompt that was looked at last has a mark, and its place is not known."""
        return bool(self._last or self._last_remark)

    def at(self, where: str) -> None:
        """Name the place of the prompt that was looked at last."""
        if self._last and not self._first:
            self._first = f"{where}: {_shown(self._last)}"
        if self._last_remark and not self._first_remark:
            self._first_remark = f"{where}: {_shown(self._last_remark)}"
        self._last = self._last_remark = ""

    def settle(self) -> None:
        """Judge the whole list: raise ConfigError, or log a warning."""
        if self._marked and self._is_refused:
            raise ConfigError(self._message())
        self._warn()

    def so_far(self, where: str) -> None:
        """Judge the newest prompt of a stream: raise ConfigError, or log one warning."""
        is_marked, is_remarked = bool(self._last), bool(self._last_remark)
        self.at(where)
        if is_marked and self._is_refused:
            raise ConfigError(self._message())
        if (is_marked or is_remarked) and not self._has_warned:
            self._has_warned = True
            self._warn()

    @property
    def _is_refused(self) -> bool:
        return self._refuses and (self._is_table or 2 * self._marked >= self._prompts)

    def _warn(self) -> None:
        if self._marked:
            logger.warning("%s", self._message())
        if self._remarked:
            kinds = ", ".join(self._remarked_kinds)
            logger.warning(
                "%s of %s prompts have marks of other tools, which Flux reads as text: %s (%s)",
                f"{self._remarked:,}", f"{self._prompts:,}", kinds, self._first_remark,
            )  # fmt: skip

    def _message(self) -> str:
        kinds = " or ".join(self._kinds)
        ways = "; ".join(
            _OF_COLUMNS if kind == OPTIONS and not self._has_lines else _ADVICE[kind]
            for kind in self._kinds
        )
        look = "looks" if self._marked == 1 else "look"
        prompts = "prompt" if self._prompts == 1 else "prompts"
        return (
            f"{self._marked:,} of {self._prompts:,} {prompts} {look} like {kinds} of another tool "
            f"({self._first}). {ways}; --syntax as-written sends everything as it is"
        )


def _shown(prompt: str) -> str:
    line = " ".join(prompt[: 2 * _SHOWN].split())
    return f"“{line[:_SHOWN]}…”" if len(line) > _SHOWN else f"“{line}”"


def _names_columns(line: str) -> bool:
    """Whether a line is the header of a table: a prompt's name, another column's, and no others
    than short names."""
    names = [name.strip(" \"'").lower() for name in re.split(r"[,;\t]", line[:2_000])]
    return (
        len(names) > 1
        and bool(_PROMPT_NAMES.intersection(names))
        and bool(_OTHER_NAMES.intersection(names))
        and all(re.fullmatch(r"[\w .-]{0,40}", name) for name in names)
    )
