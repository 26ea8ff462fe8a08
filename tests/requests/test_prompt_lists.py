"""Prompt lists as spreadsheets and data sets really write them: requests and errors."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.prompt_lists import complaint_of, open_list, plan_of, requests_of, rows_of, saved
from support.sample_images import png
from support.workbooks import workbook

from fluxasync import BadRow, ConfigError, ImageRequest, Prompts
from fluxasync._core.extras import install_command
from fluxasync._requests.image_inputs import allowed_folders

ROWS: list[dict[str, Any]] = [
    {"prompt": 'a "red" fox, in snow; or not', "width": 512, "seed": 7, "guidance": 2.5},
    {"prompt": "two\nlines\tand ein Schloß 夜", "seed": 0},
    {"prompt": "fox", "prompt_upsampling": True, "output_format": "png"},
    {"prompt": "fox", "prompt_upsampling": True, "output_format": "png"},
]
COLUMNS = ("prompt", "width", "seed", "guidance", "prompt_upsampling", "output_format")


def table(**dialect: Any) -> str:
    """The rows as Python's csv module writes them; its default is the dialect of Excel."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, **dialect)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


def libre_office() -> str:
    """As LibreOffice writes where commas are decimal: semicolons, LF, TRUE in the local tongue."""
    return table(delimiter=";", lineterminator="\n").replace("2.5", "2,5").replace("True", "TRUE")


def pandas_csv(folder: Path, **options: Any) -> bytes:
    pandas = pytest.importorskip("pandas")
    path = folder / "by-pandas"
    pandas.DataFrame(ROWS).to_csv(path, **options)
    return path.read_bytes()


def pandas_parquet(folder: Path, **options: Any) -> bytes:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = folder / "by-pandas"
    pandas.DataFrame(ROWS).to_parquet(path, **options)
    return path.read_bytes()


def arrow_parquet(folder: Path, **options: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = folder / "by-arrow"
    whole = [dict.fromkeys(COLUMNS) | row for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(whole), path, **options)
    return path.read_bytes()


def excel(folder: Path) -> bytes:
    """The rows as a workbook, with None in its gaps."""
    pytest.importorskip("openpyxl")
    cells = [[row.get(name) for name in COLUMNS] for row in ROWS]
    return workbook(folder / "by-openpyxl.xlsx", [COLUMNS, *cells]).read_bytes()


def jsonl() -> str:
    return "".join(json.dumps(row) + "\n" for row in ROWS)


SHAPES: list[Any] = [
    pytest.param("p.jsonl", lambda _: jsonl(), id="jsonl"),
    pytest.param("p.ndjson", lambda _: jsonl(), id="ndjson"),
    pytest.param("p.csv", lambda _: table(), id="Excel: CRLF"),
    pytest.param("p.csv", lambda _: "\ufeff" + table(), id="Excel: CSV UTF-8, with its mark"),
    pytest.param("p.csv", lambda _: "sep=,\r\n" + table(), id="Excel: sep="),
    pytest.param("p.csv", lambda _: table(delimiter=";"), id="Excel: semicolons"),
    pytest.param("p.csv", lambda _: libre_office(), id="LibreOffice: decimal commas"),
    pytest.param("p.csv", lambda _: table(quoting=csv.QUOTE_ALL), id="all quoted"),
    pytest.param("p.csv", lambda _: "\n\n" + table(quoting=csv.QUOTE_ALL, lineterminator="\r"),
                 id="lone CR, blank top"),
    pytest.param("p.csv", lambda _: table(delimiter="\t"), id="tabs in a .csv"),
    pytest.param("p.tsv", lambda _: table(delimiter="\t"), id="tsv"),
    pytest.param("p.CSV.GZ", lambda _: gzip.compress(table().encode()), id="csv.gz"),
    pytest.param("p.csv", lambda folder: pandas_csv(folder, index=False), id="pandas csv"),
    pytest.param("p.csv", pandas_csv, id="pandas csv with its index"),
    pytest.param("p.tsv", lambda folder: pandas_csv(folder, sep="\t"), id="pandas tsv"),
    pytest.param("p.parquet", pandas_parquet, id="pandas parquet: whole numbers as floats"),
    pytest.param("p.parquet", arrow_parquet, id="pyarrow"),
    pytest.param(
        "p.parquet", lambda folder: arrow_parquet(folder, row_group_size=1), id="row groups"
    ),
    pytest.param("p.xlsx", excel, id="xlsx"),
    pytest.param("p.json", lambda _: json.dumps(ROWS), id="json"),
    pytest.param("p.json", lambda _: "\ufeff \n" + json.dumps(ROWS, indent=2), id="json, pretty"),
    pytest.param("p.json", lambda _: jsonl(), id="json lines named json"),
    pytest.param("p.json.gz", lambda _: gzip.compress(json.dumps(ROWS).encode()), id="json.gz"),
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "content"), SHAPES)
async def test_p27_equal_rows_have_equal_keys_in_every_format(
    tmp_path: Path, name: str, content: Callable[[Path], str | bytes]
) -> None:
    """P27: the same list in another format is the same list, paid once, repeats included."""
    expected = await requests_of(ROWS)
    path = saved(tmp_path, name, content(tmp_path))
    assert [r.key for r in expected] == [r.key for r in await requests_of(path)]
    assert (await plan_of(path)).images == len(ROWS)


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "content"), SHAPES)
async def test_a_resumed_list_yields_the_remaining_rows(
    tmp_path: Path, name: str, content: Callable[[Path], str | bytes]
) -> None:
    """The run reads the checked rows back, in every format."""
    keys = [r.key for r in await requests_of(ROWS)]
    source = open_list(saved(tmp_path, name, content(tmp_path)))
    done = {keys[0], keys[2]}
    plan = await source.check(lookup=lambda asked: ["done" if k in done else None for k in asked])
    async with aclosing(source.requests(skip=frozenset({"done"}))) as requests:
        left = [request async for request in requests]
    await source.aclose()
    assert (plan.images, plan.to_do) == (4, 2)
    assert [(1, keys[1]), (3, keys[3])] == [
        (r.index, r.key) for r in left if isinstance(r, ImageRequest)
    ]


BAD_TABLES = [
    pytest.param("prompt,width\nfox,512\nowl,1o24\n", "p.csv row 3: column 'width': '1o24' is not"
                 " a whole number", id="a slip in a number"),
    pytest.param("prompt,width\nfox,512.5\n", "row 2: column 'width': '512.5'", id="half a pixel"),
    pytest.param("prompt,guidance\nfox,\"2,5\"\n", "column 'guidance': '2,5' is not a number",
                 id="a decimal comma between commas"),
    pytest.param("prompt,prompt_upsampling\nfox,maybe\n", "'maybe' is neither true nor false",
                 id="no truth"),
    pytest.param("prompt,extra_body\nfox,\"{oops\"\n", "column 'extra_body': column 2: not JSON",
                 id="no object"),
    pytest.param("prompt,width\nfox,1023\n", "row 2: width=1023", id="a size that is not taken"),
    pytest.param("prompt,widht\nfox,512\n", "row 2: widht: flux-dev has no such parameter; did"
                 " you mean width?", id="a misspelt column"),
    pytest.param("prompt\na fox, in snow\n", "row 2: 2 cells in a table of 1 columns; a cell that"
                 " holds the separator is put in double quotes", id="an unquoted comma"),
    pytest.param('prompt\n"a fox\nowl\nbat\n', "row 2: a double quote that is never closed",
                 id="an open quote"),
    pytest.param('prompt\n"a fox\n' + "owl\n" * 50_000, "row 2: a cell of more than 131,072"
                 " characters; is a double quote never closed?", id="an open quote far up"),
    pytest.param('prompt\n"a" fox\n', "row 2: text after a closing double quote", id="a quote"),
    pytest.param(b"prompt\ncaf\xe9\n", "row 2: column 'prompt': byte 0xe9 is not UTF-8; save the"
                 " table as UTF-8 (in Excel: “CSV UTF-8”)", id="F133 Excel's plain CSV"),
    pytest.param("Titel,Text\nfox,owl\n", "p.csv: no column is named prompt (columns:"
                 " 'Titel', 'Text'); name the column of the prompts: --prompt-column Text; if",
                 id="no prompt"),
    pytest.param("prompt,model\na fox,Deluxe 3000\n", "row 2: model='Deluxe 3000': not the name"
                 " of a model; to keep it as metadata: --map extras.model=model",
                 id="a product's model"),
    pytest.param("SKU,Colour\nA-1,red\n", "--prompt-column NAME, or fill columns in: --prompt"
                 " '{SKU} …'; if the first row", id="no prompt in columns of names"),
    pytest.param("prompt,Width,width\nfox,1,2\n", "p.csv: width would come from two columns,"
                 " 'Width' and 'width'", id="two columns"),
    pytest.param("prompt,note,note\nfox,1,2\n", "p.csv: two columns are named 'note'; rename or"
                 " remove one",
                 id="the same name twice"),
    pytest.param("prompt,Gr\xf6\xdfe\nfox,1\n".encode("latin-1"), "p.csv: byte 0xf6 is not UTF-8;"
                 " save the table as UTF-8", id="F133 a header in another encoding"),
    pytest.param("prompt,width\nfox,512\n".encode("utf-16"), "p.csv is UTF-16 or UTF-32; save it"
                 " as UTF-8", id="F131 Excel's Unicode text"),
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize(("content", "complaint"), BAD_TABLES)
async def test_a_bad_table_is_reported_with_row_and_column(
    tmp_path: Path, content: str | bytes, complaint: str
) -> None:
    """The line names the row as the spreadsheet counts it, and what to do."""
    message = await complaint_of(saved(tmp_path, "p.csv", content))
    assert complaint in message.splitlines()[0]
    assert len(message.splitlines()[0]) < 250


@pytest.mark.asyncio
async def test_rows_are_counted_as_a_spreadsheet_does(tmp_path: Path) -> None:
    """Blank rows count, cells of several lines are one row, and the names are row 1."""
    path = saved(tmp_path, "p.csv", 'prompt,width\n"two\nlines",512\n,\n\nfox,oops\nowl,\n')
    _, bad, owl = await rows_of(path, skip_bad=True)
    assert isinstance(bad, BadRow)
    assert bad.where == "p.csv row 5"
    assert isinstance(owl, ImageRequest)
    assert (owl.prompt, owl.width, owl.index) == ("owl", None, 1)


@pytest.mark.asyncio
async def test_headers_are_read_as_people_write_them(tmp_path: Path) -> None:
    """Capitals and spaces do not change a column's parameter; unknown columns become metadata."""
    path = saved(tmp_path, "p.csv", "Prompt , Output Format,Shelf Mark,\nfox,PNG,007,\n")
    [message] = (await complaint_of(path)).splitlines()
    assert message == "p.csv row 2: output_format='PNG': flux-dev takes jpeg, png or webp"
    path = saved(tmp_path, "q.csv", "Prompt , Output Format,Shelf Mark,\nfox,png,007,\n")
    [request] = await requests_of(path)
    assert (request.output_format, request.extras) == ("png", {"Shelf Mark": "007"})
    assert (await plan_of(path)).unknown_keys == ("Shelf Mark",)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet", "p.json", "list"])
async def test_columns_are_mapped_by_name(tmp_path: Path, name: str) -> None:
    """A data set's own names do, in every format that has columns; the rest is metadata."""
    rows = [
        {"caption": "fox", "w": 512, "image": "a.png", "id": 3},
        {"caption": "owl", "w": None, "image": "b.png", "id": 4},
    ]
    columns = {"prompt": "caption", "width": "w", "extras.image": "image"}
    given: Any = rows
    if name == "p.parquet":
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        given = tmp_path / name
        parquet.write_table(pyarrow.Table.from_pylist(rows), given)
    elif name == "p.csv":
        given = saved(tmp_path, name, "caption,w,image,id\nfox,512,a.png,3\nowl,,b.png,4\n")
    elif name != "list":
        lines = "\n".join(map(json.dumps, rows))
        given = saved(tmp_path, name, lines if name == "p.jsonl" else json.dumps(rows))
    fox, owl = await requests_of(given, columns=columns)
    assert (fox.prompt, fox.width, owl.prompt, owl.width) == ("fox", 512, "owl", None)
    assert fox.extras == {"image": "a.png", "id": "3" if name == "p.csv" else 3}
    assert fox.key == ImageRequest(prompt="fox", width=512).key


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "columns", "complaint"),
    [
        pytest.param("a,b\n1,2\n", {"prompt": "text"},
                     "no column 'text' for prompt (columns: 'a', 'b')", id="no column"),
        pytest.param("prompt,w,width\nfox,1,2\n", {"width": "w"},
                     "width would come from two columns, 'w' and 'width'", id="two columns"),
        pytest.param("text,prompt\nfox,2\n", {"prompt": "text"},
                     "prompt would come from two columns",
                     id="two prompts"),
    ],
)  # fmt: skip
async def test_a_mapping_that_does_not_fit_is_refused(
    tmp_path: Path, content: str, columns: Any, complaint: str
) -> None:
    """A slip in a column's name is not a thousand images of the default size."""
    assert complaint in await complaint_of(saved(tmp_path, "p.csv", content), columns=columns)


@pytest.mark.asyncio
async def test_a_mapped_key_that_no_object_has_is_refused(tmp_path: Path) -> None:
    """Objects may leave a key out, but not all of them."""
    path = saved(tmp_path, "p.jsonl", '{"t": "fox", "wide": 512}\n{"t": "owl"}\n')
    fox, owl = await requests_of(path, columns={"prompt": "t", "width": "wide"})
    assert (fox.width, owl.width) == (512, None)
    message = await complaint_of(path, columns={"prompt": "t", "width": "W"})
    assert message == "columns: no row has 'W', which width was to come from"
    message = await complaint_of(path, columns={"prompt": "caption"})
    assert message.splitlines()[0] == "p.jsonl line 1: no 'caption' (keys: 't', 'wide')"


def test_a_mapping_to_nothing_is_refused(tmp_path: Path) -> None:
    """What no model takes can only be metadata, and a list of texts has no columns."""
    with pytest.raises(ConfigError, match=r"'widht' is no parameter .* extras\.widht=w"):
        Prompts(["fox"], columns={"widht": "wide"})
    with pytest.raises(ConfigError, match="no columns that could be mapped"):
        open_list(saved(tmp_path, "p.txt", "fox"), columns={"prompt": "a"})


@pytest.mark.asyncio
async def test_image_columns_of_a_data_set_are_not_metadata(tmp_path: Path) -> None:
    """Columns of bytes are left out, with a note, except for the model's image input."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    image = {"bytes": png(128, 128), "path": "a.png"}
    index = "__index_level_0__"  # as pandas writes it
    rows = [{"prompt": "fox", "photo": image, "taken": None, "split": "train", index: 7}]
    path = tmp_path / "p.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    [request] = await requests_of(path)
    assert request.extras == {"split": "train"}
    assert (await plan_of(path)).notes == ("left out, because bytes are no metadata: photo",)
    defaults = {"model": "flux-pro-1.1"}
    columns = {"image_prompt": "photo"}
    [request] = await requests_of(path, columns=columns, parameters=defaults)
    assert request.image_prompt is not None
    assert request.image_prompt.data == image["bytes"]


@pytest.mark.asyncio
async def test_a_folder_is_a_prompt_a_file(tmp_path: Path) -> None:
    """Captions beside pictures are prompts in the order of their names, and named after them."""
    folder = tmp_path / "captions"
    folder.mkdir()
    saved(folder, "002.txt", "an owl\r\nat night\r\n")
    saved(folder, "001.txt", "\ufeffa fox\n")
    saved(folder, "003.txt", " \n")
    saved(folder, "001.png", b"\x89PNG")
    saved(folder, "._001.txt", b"\0\1")
    got = await requests_of(folder)
    assert [(r.prompt, r.name) for r in got] == [("a fox", "001"), ("an owl\nat night", "002")]
    assert got[0].key == ImageRequest(prompt="a fox").key
    saved(folder, "004.txt", b"caf\xe9")
    assert (await complaint_of(folder)).startswith("captions/004.txt: byte 0xe9 is not UTF-8")


@pytest.mark.asyncio
async def test_a_folder_that_changed_after_its_check_is_run_as_checked(tmp_path: Path) -> None:
    """F139: a prompt that was not checked is not made; other files may come meanwhile."""
    saved(tmp_path, "1.txt", "fox")
    source = open_list(tmp_path)
    await source.check()
    saved(tmp_path, "1.jpg", "picture")
    saved(tmp_path, "1.txt", "bat")
    saved(tmp_path, "0.txt", "elk")
    [fox] = [row async for row in source.requests()]
    await source.aclose()
    assert isinstance(fox, ImageRequest)
    assert (fox.prompt, fox.name) == ("fox", "1")


@pytest.mark.asyncio
async def test_an_empty_folder_is_an_error_that_lists_the_formats(tmp_path: Path) -> None:
    """Nothing to do is not a run without images."""
    assert "holds no .txt file" in await complaint_of(tmp_path)


@pytest.mark.asyncio
async def test_the_suggested_mapping_leaves_out_a_data_sets_image_column(
    tmp_path: Path,
) -> None:
    """A column `image` of bytes is no other model's input by accident, and easily left out."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "p.parquet"
    rows = [{"prompt": "fox", "image": {"bytes": b"x", "path": "a.png"}}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert "map extras.image=image" in await complaint_of(path)
    columns = {"extras.image": "image"}
    [request] = await requests_of(path, columns=columns)
    assert request.extras == {}
    plan = await plan_of(path, columns=columns)
    assert plan.notes == ("left out, because bytes are no metadata: image",)


GAPS = [
    pytest.param("p.csv", "prompt;width;seed\nfox;512,0;7,0\nowl;;\n", id="csv, decimal commas"),
    pytest.param("p.csv", "prompt,width,seed\nfox,512.0,7.0\nowl,,\n", id="csv"),
    pytest.param("p.jsonl", '{"prompt": "fox", "width": 512.0, "seed": 7.0}\n'
                 '{"prompt": "owl", "width": null, "seed": null}\n', id="json lines"),
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "content"), GAPS)
async def test_whole_numbers_survive_the_gaps_of_their_column(
    tmp_path: Path, name: str, content: str
) -> None:
    """pandas makes 512 a 512.0 where another row has none: it is the same image."""
    fox, owl = await requests_of(saved(tmp_path, name, content))
    assert fox.key == ImageRequest(prompt="fox", width=512, seed=7).key
    assert owl.key == ImageRequest(prompt="owl").key


@pytest.mark.asyncio
async def test_data_frame_rows_are_requests_and_a_data_frame_is_refused() -> None:
    """`to_dict("records")` has NaN in its gaps; a frame itself would be its columns' names."""
    rows = [
        {"prompt": "fox", "width": 512.0},
        {"prompt": "owl", "width": math.nan, "mine": math.nan},
    ]
    fox, owl = await requests_of(rows)
    assert fox.key == ImageRequest(prompt="fox", width=512).key
    assert (owl.key, owl.extras) == (ImageRequest(prompt="owl").key, {})
    frame = type("DataFrame", (), {"__iter__": lambda self: iter(["prompt", "width"])})()
    with pytest.raises(ConfigError, match=r'its rows: df\.to_dict\("records"\)'):
        open_list(frame)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param('[{"prompt": "fox"}, {"prompt": "owl", "prompt": "bat"}]',
                     "p.json item 2: duplicate key 'prompt'", id="the same key twice"),
        pytest.param('[{"prompt": "fox"}, {"prompt": oops}]', "p.json item 2: not JSON", id="oops"),
        pytest.param('[{"prompt": "fox"} {"prompt": "owl"}]', "item 1: no comma", id="no comma"),
        pytest.param('[{"prompt": "fox"}', "item 1: the file ends in the middle", id="cut off"),
        pytest.param('["fox"] []', "item 1: there is more after the list", id="more"),
        pytest.param('["fox", 7]', "p.json item 2: not a JSON object", id="a number"),
        pytest.param('"fox"', "p.json: a .json file is one list", id="one text"),
        pytest.param('{"a": ["fox"], "b": ["owl"]}', 'p.json: a .json file is one list:'
                     ' [{"prompt": "…"}, …] (from pandas: orient="records")', id="two lists"),
        pytest.param('{\n  "a": 1\n}', "p.json: a .json file is one list", id="an object"),
        pytest.param(b'["caf\xe9"]', "p.json: byte 0xe9 is not UTF-8", id="Latin-1"),
        pytest.param('["fox"]'.encode("utf-16"), "p.json is UTF-16 or UTF-32", id="UTF-16"),
        pytest.param('[{"prompt": "fox", "guidance": NaN}]', "NaN is not a number", id="NaN"),
        pytest.param('[{"a": ' + "[" * 100_000, "item 1: ", id="100,000 levels"),
    ],
)  # fmt: skip
async def test_a_bad_json_list_is_reported_with_its_item(
    tmp_path: Path, content: str | bytes, complaint: str
) -> None:
    """A list is read as strictly as lines are."""
    assert complaint in (await complaint_of(saved(tmp_path, "p.json", content))).splitlines()[0]


@pytest.mark.asyncio
@pytest.mark.parametrize("length", [2**20 - 60, 2**20 - 30, 2**20 - 15, 2**20 - 2])
async def test_a_json_list_is_cut_right_wherever_a_block_ends(tmp_path: Path, length: int) -> None:
    """An element across two blocks of the file is the same element."""
    first = json.dumps({"prompt": "x" * (length // 2)})
    text = f"[{first},\n{first.ljust(length - len(first))},\n" + '{"prompt": "é", "seed": 1234567}]'
    got = await requests_of(saved(tmp_path, "p.json", text))
    assert [len(r.prompt) for r in got] == [length // 2, length // 2, 1]
    assert got[-1].seed == 1234567


@pytest.mark.asyncio
@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
async def test_a_damaged_packed_file_is_refused(tmp_path: Path, damage: str) -> None:
    """Half a list is not run as if it were whole, and not in doubt either."""
    text = "".join(f"fox {number * 7919 % 10007}\n" for number in range(5000))
    packed = gzip.compress(text.encode())
    if damage == "cut":
        packed = packed[: len(packed) - 100]
    elif damage == "changed":
        packed = packed[:500] + bytes([packed[500] ^ 255]) + packed[501:]
    else:
        packed = b"fox\n" * 100
    message = await complaint_of(saved(tmp_path, "p.txt.gz", packed))
    assert message.startswith("p.txt.gz cannot be unpacked: ")
    assert message.endswith("copy or download it again")


@pytest.mark.asyncio
async def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    """The error of a truncated file says so."""
    content = arrow_parquet(tmp_path)
    message = await complaint_of(saved(tmp_path, "p.parquet", content[:-20]))
    assert message.startswith("p.parquet is not a whole .parquet file")


@pytest.mark.asyncio
async def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package there is one line that says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = await complaint_of(saved(tmp_path, "p.parquet", "x"))
    assert message.endswith(install_command("data"))


@pytest.mark.asyncio
async def test_images_of_a_table_are_relative_to_it(tmp_path: Path) -> None:
    """A spreadsheet and its photographs work from anywhere; a missing one is an error."""
    saved(tmp_path, "a.png", png(128, 128))
    header = "prompt,model,image_prompt\n"
    path = saved(tmp_path, "p.csv", f"{header}fox,flux-pro-1.1,a.png\n,flux-pro-1.1,a.png\n")
    fox, bare = await requests_of(path, seeds=[1])
    assert fox.image_prompt == bare.image_prompt
    path = saved(tmp_path, "q.csv", f"{header}fox,flux-pro-1.1,gone.png\n")
    assert (await complaint_of(path)).startswith("q.csv row 2: ")


@pytest.mark.parametrize(
    "name",
    [
        "README.txt",
        "requirements-dev.txt",
        "LICENSE.txt",
        "build-log.txt",
        "a.log.txt",
        "todo.txt",
    ],
)
@pytest.mark.asyncio
async def test_a_folder_of_other_files_is_refused(tmp_path: Path, name: str) -> None:
    """`run .` generates nothing from a folder of code; captions with these words are taken."""
    saved(tmp_path, "001.txt", "a fox")
    saved(tmp_path, "a log on the river.txt", "a log")
    assert len(await requests_of(tmp_path)) == 2
    saved(tmp_path, name, "pip")
    message = await complaint_of(tmp_path)
    assert message == (
        f"{tmp_path.name}/{name}: not a prompt, by its name; move it away, or name a list as the "
        "source itself"
    )


@pytest.mark.asyncio
async def test_a_list_in_a_folder_is_not_taken_for_one_prompt(tmp_path: Path) -> None:
    """A file of many lines is a list or a log; ten lines may be a long prompt."""
    saved(tmp_path, "001.txt", "\n".join(["a fox"] * 10))
    assert len(await requests_of(tmp_path)) == 1
    saved(tmp_path, "prompts.txt", "\n".join(["a fox"] * 11))
    message = await complaint_of(tmp_path)
    assert "prompts.txt: 11 lines, and a folder's file is one prompt" in message


# --- numbers that are text ------------------------------------------------------------------------

TEXT_ROW = {"prompt": "a fox", "width": "1024", "seed": "7", "guidance": "3.5", "steps": "28.0",
            "n": "2", "prompt_upsampling": "TRUE", "aspect_ratio": "", "model": ""}  # fmt: skip
NUMBER_ROW = {"prompt": "a fox", "width": 1024, "seed": 7, "guidance": 3.5, "steps": 28,
              "n": 2, "prompt_upsampling": True}  # fmt: skip


@pytest.mark.asyncio
async def test_text_numbers_are_taken_from_every_source(tmp_path: Path) -> None:
    """ "1024" is 1024, with the same key, in CSV, JSON, dicts and the rows of csv.DictReader."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(TEXT_ROW))
    writer.writeheader()
    writer.writerow(TEXT_ROW)
    content = text.getvalue()
    expected = [request.key for request in await requests_of([NUMBER_ROW])]
    sources = [
        [TEXT_ROW],
        csv.DictReader(io.StringIO(content)),
        saved(tmp_path, "p.csv", content),
        saved(tmp_path, "p.jsonl", json.dumps(TEXT_ROW)),
        saved(tmp_path, "p.json", json.dumps([TEXT_ROW])),
    ]
    assert len(expected) == 2
    for given in sources:
        assert expected == [request.key for request in await requests_of(given)]


@pytest.mark.asyncio
async def test_text_numbers_of_a_grid_are_the_same_values() -> None:
    """512 and "512" of a grid are one value, so they are not paid twice."""
    with pytest.raises(ConfigError, match="width: duplicate value 512"):
        Prompts(["a fox"], grid={"width": [512, "512"]})
    given = await requests_of(["a fox"], seeds=["3"])
    assert [request.seed for request in given] == [3]


@pytest.mark.asyncio
@pytest.mark.parametrize("value", ["1o24", "1024px", "0x400", "1_024", "1e3", "١٠٢٤", "10.5"])
async def test_text_that_is_not_exactly_a_number_is_refused(value: str) -> None:
    """The message shows the text and what the parameter takes."""
    message = await complaint_of([{"prompt": "a fox", "width": value}])
    assert f"item 1: width={value!r}: flux-dev takes a whole number" in message


@pytest.mark.asyncio
async def test_equal_complaints_are_one_line(tmp_path: Path) -> None:
    """An error of many rows is one line with their numbers; another error is another line."""
    rows = ["1o24"] * 11 + ["512"] + ["1o24"] * 2 + ["1000"]
    table = "prompt,width\n" + "".join(f"fox,{width}\n" for width in rows)
    message = (await complaint_of(saved(tmp_path, "p.csv", table))).splitlines()
    assert len(message) == 2
    assert message[0].startswith("p.csv rows 2–12, 14–15: column 'width': '1o24' is not")
    assert message[1].startswith("p.csv row 16: width=1000: ")


@pytest.mark.asyncio
async def test_complaints_stay_few_in_a_long_list() -> None:
    """Scattered places are counted after the first five, and different complaints after ten."""
    rows = [{"prompt": "a fox", "width": "x"}, {"prompt": "a fox"}] * 20
    message = await complaint_of(rows)
    assert message.startswith("items 1, 3, 5, 7, 9 and 15 more: width='x'")
    message = await complaint_of([{"prompt": "a fox", "width": f"x{n}"} for n in range(25)])
    assert len(message.splitlines()) == 11
    assert message.splitlines()[-1] == "and 15 more"


# --- files and URLs that a list names -------------------------------------------------------------

MODEL = "flux-pro-1.1"


def one_image(kind: str, folder: Path, image: str) -> Any:
    """A list of one row with this image, in one of the ways in which lists come."""
    row = {"prompt": "fox", "model": MODEL, "image_prompt": image}
    if kind == "csv":
        return saved(folder, "p.csv", f"prompt,model,Image Prompt\nfox,{MODEL},{image}\n")
    if kind == "jsonl":
        return saved(folder, "p.jsonl", json.dumps(row))
    if kind == "json":
        return saved(folder, "p.json", json.dumps([row]))
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        named = row | {"image_prompt": {"bytes": None, "path": image}}  # as `datasets` writes it
        parquet.write_table(pyarrow.Table.from_pylist([named]), folder / "p.parquet")
        return folder / "p.parquet"
    return [row] if kind == "list" else iter([row])


KINDS = ["csv", "jsonl", "json", "parquet", "list", "stream"]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_row_may_name_files_of_the_lists_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """S6: a path out of the list's folder is a bad row, until its folder is allowed."""
    (tmp_path / "list").mkdir()
    monkeypatch.chdir(tmp_path / "list")
    private = saved(tmp_path, "passport.png", png(128, 128))
    inside = saved(tmp_path / "list", "fox.png", png(128, 128))
    folder = tmp_path / "list"
    for name in (str(private), "../passport.png"):
        [refused] = await rows_of(one_image(kind, folder, name), skip_bad=True)
        assert isinstance(refused, BadRow)
        assert "outside the list's folder" in str(refused)
        allowed = allowed_folders(tmp_path)
        [taken] = await requests_of(one_image(kind, folder, name), allow_files=allowed)
        assert taken.key
    for name in (str(inside), "fox.png"):
        await requests_of(one_image(kind, folder, name))


@pytest.mark.asyncio
async def test_image_inputs_named_by_the_user_may_be_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6: --param, --grid, Path objects and requests of a program are asked for knowingly."""
    (tmp_path / "list").mkdir()
    monkeypatch.chdir(tmp_path / "list")
    image = str(saved(tmp_path, "fox.png", png(128, 128)))
    prompts = saved(tmp_path / "list", "p.txt", "a fox\n")
    await requests_of(prompts, parameters={"model": MODEL, "image_prompt": image})
    await requests_of(prompts, model=MODEL, grid={"image_prompt": [image]})
    await requests_of([{"prompt": "fox", "model": MODEL, "image_prompt": Path(image)}])
    await requests_of([ImageRequest(prompt="fox", model=MODEL, image_prompt=image)])
    await requests_of([ImageRequest(prompt="a", model=MODEL, image_prompt=image)], seeds=[1, 2])
    with pytest.raises(ConfigError, match="outside the list's folder"):
        await plan_of([{"prompt": "a", "model": MODEL, "image_prompt": image}], seeds=[1, 2])


PRIVATE_URLS = ["http://localhost/a.png", "http://127.0.0.1:8080/a.png", "http://10.0.0.7/a.png",
                "http://169.254.169.254/latest", "http://[::1]/a.png", "http://0x7f.1/a.png",
                "http://2130706433/a.png", "http://intranet/a.png", "http://nas.local/a.png",
                "http://[::ffff:10.0.0.1]/a.png", "https://metadata.google.internal/a",
                "http://127。0。0。1/a.png", "http://localhost./a.png"]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("url", PRIVATE_URLS)
async def test_a_url_of_a_private_network_is_refused_in_a_row(url: str) -> None:
    """A list does not make the provider ask hosts that are not public; a local one may be asked."""
    row = {"prompt": "fox", "model": MODEL, "image_prompt": url}
    assert "is not on the public internet" in await complaint_of([row])
    await requests_of([row], is_local=True)
    await requests_of(["fox"], parameters={"model": MODEL, "image_prompt": url})


@pytest.mark.asyncio
@pytest.mark.parametrize("url", ["https://me:secret@e.com/a.png", "https://me@e.com/a.png"])
async def test_a_url_with_a_password_is_refused_in_a_row(url: str) -> None:
    """The provider would get to see it; the message does not show it."""
    row = {"prompt": "fox", "model": MODEL, "image_prompt": url}
    message = await complaint_of([row], is_local=True)
    assert "holds a user name or password" in message
    assert "me" not in message.replace("image_prompt", "").replace("name", "")


@pytest.mark.asyncio
async def test_a_public_url_is_passed_on() -> None:
    """The check makes no DNS query and fetches nothing."""
    for url in ("https://example.com/a.png", "http://8.8.8.8/a.png", "https://a.b.example/c?d=@"):
        [request] = await requests_of([{"prompt": "fox", "model": MODEL, "image_prompt": url}])
        assert request.image_prompt is not None
        assert url == request.image_prompt.url


@pytest.mark.asyncio
async def test_a_caption_that_is_a_link_out_of_its_folder_is_a_bad_row(tmp_path: Path) -> None:
    """S5: a link in a folder from elsewhere turns no file of the user into a prompt."""
    (tmp_path / "captions").mkdir()
    secret = saved(tmp_path, "secret.txt", "the secret")
    saved(tmp_path / "captions", "b.txt", "a fox")
    (tmp_path / "captions" / "a.txt").symlink_to(secret)
    bad, fox = await rows_of(tmp_path / "captions", skip_bad=True)
    assert str(bad).startswith("captions/a.txt: outside the list's folder")
    assert isinstance(fox, ImageRequest)
    linked, _ = await requests_of(tmp_path / "captions", allow_files=allowed_folders(tmp_path))
    assert linked.prompt == "the secret"
