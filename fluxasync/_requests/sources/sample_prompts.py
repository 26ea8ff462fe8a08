"""Lines of kohya's sample prompts: a prompt, then `--w 768 --h 512 --d 1 --l 5 --s 28`."""

from __future__ import annotations

import re
from typing import Any

from ..._core.errors import ConfigError
from ..catalog import number_of, whole_number

#: options of kohya-ss/sd-scripts (docs/train_network, read 2026-11-29) and their long names in
#: AUTOMATIC1111's "Prompts from file": names of parameters. A negative prompt is kept as metadata,
#: as a column of that name is, because Flux models take none
_NAMES = {
    "w": "width", "h": "height", "s": "steps", "d": "seed", "l": "guidance", "g": "guidance",
    "n": "negative_prompt", "width": "width", "height": "height", "steps": "steps",
    "seed": "seed", "cfg_scale": "guidance", "guidance": "guidance",
    "negative_prompt": "negative_prompt", "prompt": "prompt",
}  # fmt: skip

_OPTION = re.compile(r"(?:^|(?<!\s)\s+)--(?=[A-Za-z])")
_MARKS = ("#", "//")


def is_comment(line: str) -> bool:
    return line.startswith(_MARKS)


def row_of(line: str) -> dict[str, Any]:
    """Return the row of a line. Raises ConfigError for an option that is not known."""
    prompt, *options = _OPTION.split(line)
    row: dict[str, Any] = {"prompt": prompt.strip()} if prompt.strip() else {}
    for option in options:
        written, _, value = option.replace("=", " ", 1).partition(" ")
        name = _NAMES.get(written.lower().replace("-", "_"))
        if name is None:
            known = " ".join(f"--{each}" for each in _NAMES if len(each) == 1)
            raise ConfigError(f"--{written[:40]}: not an option of a sample prompt ({known})")
        if name in row:
            raise ConfigError(f"--{written[:40]}: {name} is given twice in the line")
        if value.strip():
            row[name] = _read(name, value.strip())
    return row


def _read(name: str, value: str) -> Any:
    if name in ("prompt", "negative_prompt"):
        return value.strip("\"'")
    return number_of(value) if name == "guidance" else whole_number(value)
