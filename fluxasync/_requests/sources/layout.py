"""How a list holds its rows, where the file does not say so."""

from __future__ import annotations

from attrs import frozen

from ..._core.arguments import check_type


@frozen(kw_only=True)
class Layout:
    """What the user says about the form of a list."""

    header: bool = True  #: the first row of a table names its columns

    rows: str | None = None  #: the key, or the path of keys, of the rows in a .json object

    sheet: str | None = None  #: name of the sheet in an .xlsx; None = the first one

    def __attrs_post_init__(self) -> None:
        check_type("header", self.header, bool, expected="True, or False for a table without names")
        check_type(
            "rows", self.rows, str, type(None), expected='a key or a path such as "data.items"'
        )
        check_type("sheet", self.sheet, str, type(None), expected="the name of a sheet")
