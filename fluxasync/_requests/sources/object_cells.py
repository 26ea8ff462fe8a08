"""The cells of an object: a dict of a program, a line of JSON, a row of a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..._core.errors import ConfigError
from ..._core.models import ImageRequest
from ..catalog import find, is_exact, whole_number
from ..cells import EXACT, NoMetadata, image_of, is_missing, plain, unwrapped
from ..foreign_names import IMAGE_FILE, is_result, works_on_images
from ..parsing import image_message
from .column_names import EXTRAS, kind_of, short


def given_cells(row: Mapping[str, Any], leave_out: Callable[[str], None]) -> Mapping[str, Any]:
    """Return the cells of an object that are given, each as JSON has it.

    pandas writes a whole number of a column with gaps as 512.0, and the gaps as NaN, NaT or NA. An
    `n` that is text, as `csv.DictReader` gives it, becomes its number; text of other parameters is
    converted by the catalogue's check. `leave_out` is called with the name of a cell that holds
    bytes and is no image input. Raises ConfigError, with the name, for other types.
    """
    if isinstance(row.get("n"), str):
        row = {**row, "n": whole_number(row["n"]) if row["n"] else None}
    return _converted(row, _given_cell, leave_out)


def _converted(
    cells: Mapping[str, Any],
    convert: Callable[[str, Any, Callable[[str], None]], Any],
    leave_out: Callable[[str], None],
) -> Mapping[str, Any]:
    odd = [name for name, value in cells.items() if type(value) not in EXACT]
    if not odd:
        return cells
    made = dict(cells)
    for name in odd:
        value = None
        try:
            if not is_missing(made[name]):
                value = convert(name, made[name], leave_out)
        except NoMetadata:
            leave_out(str(name))
        except ConfigError as error:
            raise ConfigError(f"{short(str(name))}: {error}") from None
        if value is None:
            del made[name]
        else:
            made[name] = value
    return made


def _own_cell(_name: str, value: Any, _leave_out: Callable[[str], None]) -> Any:
    return plain(value)


def _given_cell(name: str, value: Any, leave_out: Callable[[str], None]) -> Any:
    kind = kind_of(name) if isinstance(name, str) else None
    if kind is None:
        return plain(value)
    if name == "extras" and isinstance(value, Mapping):
        return _converted(value, _own_cell, lambda key: leave_out(f"extras.{key}"))
    if kind == "int" and isinstance(value, float):
        return int(value) if is_exact(value) else value
    return image_of(value) if kind == "image" else unwrapped(value)


def refuse_bytes(row: Mapping[str, Any], name: str, model: Any) -> None:
    """Raise ConfigError for bytes that are no parameter, where the model works on images or the
    catalogue lacks it: they may be the image to work on."""
    known = find(model) if isinstance(model, str) else None
    if known is not None and works_on_images(known) and not name.startswith(EXTRAS):
        if not is_result(name):
            raise ConfigError(image_message(name, known, row))
    elif isinstance(model, str) and known is None:
        raise ConfigError(
            f"{name[:40]}: bytes are not sent to {model[:40]}, which the catalogue lacks; "
            "give the image as base64 text, or leave the column out"
        )


def refuse_picture(request: ImageRequest, name: str, base: Path | None) -> None:
    """Raise ConfigError for metadata that names an image in the list's folder, where the model
    works on images: its edit would be paid without the picture."""
    model, value = find(request.model), request.extras[name]
    if model is None or not works_on_images(model) or is_result(name):
        return
    names = value[:20] if isinstance(value, list) else [value]
    files = [each for each in names if isinstance(each, str) and IMAGE_FILE.fullmatch(each)]
    if any(os.path.isfile(os.path.join(base or ".", each)) for each in files):
        raise ConfigError(image_message(name, model, request.given()))
