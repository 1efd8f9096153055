"""Properties of the readers: whatever a file holds, each row is read or named, and none is lost."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_engineering.data.read import json_list
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.sources import read_rows
from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.unusable import UnusableRowError
from llm_engineering.errors import DataError

quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Everything that JSON can say, with lone surrogates and NULs, however it is nested.
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
columns = st.sampled_from(
    ["instruction", "response", "output", "input", "messages", "conversations", "prompt", "text"]
)
objects = st.dictionaries(columns | st.text(max_size=5), values, max_size=4)
KINDS = (".jsonl", ".json", ".csv", ".jsonl.gz")


def read(content: bytes, kind: str) -> list[Row | BadRow]:
    """What a file gives; a refusal of the whole file counts as its last bad row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{kind}"
        path.write_bytes(content)
        found: list[Row | BadRow] = []
        try:
            found += read_rows(str(path))
        except DataError as error:
            message = str(error).removeprefix("data source ")
            place, reason = re.match(r"(.*?rows[.\w]*(?::\d+)?): (.*)", message, re.S).groups()  # type: ignore[union-attr]
            found.append(BadRow(place, reason))
        return [type(row)(row.origin.replace(f"{folder}/", ""), *parts(row)) for row in found]


def parts(row: Row | BadRow) -> tuple[Any]:
    return (row.values,) if isinstance(row, Row) else (row.reason,)


# --- nothing is lost ---------------------------------------------------------------------------


@quick
@given(st.lists(objects, min_size=1, max_size=6))
def test_every_object_comes_back_from_json_lines(rows: list[Any]) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()

    assert read(content, ".jsonl") == [
        Row(f"rows.jsonl:{number}", row) for number, row in enumerate(rows, start=1)
    ]


@quick
@given(st.lists(values, min_size=1, max_size=6), st.sampled_from([None, 1]), st.integers(1, 40))
def test_every_value_of_a_json_list_is_a_row_or_named_whatever_the_chunks(
    rows: list[Any], indent: int | None, chunk: int
) -> None:
    content = json.dumps(rows, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", chunk)
        found = read(content, ".json")

    assert len(found) == len(rows)
    for row, value in zip(found, rows, strict=True):
        assert isinstance(row, Row) is isinstance(value, dict)
        if isinstance(row, Row):
            assert row.values == value
    if indent is None:
        assert {row.origin for row in found} == {"rows.json:1"}


# A header of one column would make an empty cell a blank line, which CSV has no row for.
cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@quick
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_every_cell_comes_back_from_csv(rows: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("instruction", "response"), *rows])

    found = read(text.getvalue().encode(), ".csv")

    assert [row.values for row in found if isinstance(row, Row)] == [
        {"instruction": first, "response": second} for first, second in rows
    ]


@quick
@given(st.lists(objects, min_size=2, max_size=5), st.integers(min_value=0))
def test_a_file_that_is_cut_loses_at_most_the_row_that_was_cut(rows: list[Any], at: int) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    content = content[: 1 + at % len(content)]
    whole = content.count(b"\n")

    found = read(content, ".jsonl")

    assert [row.values for row in found[:whole] if isinstance(row, Row)] == rows[:whole]
    assert len(found) == whole + (not content.endswith(b"\n"))


# --- no crash, and a place for everything ------------------------------------------------------


@quick
@given(st.binary(min_size=1, max_size=200), st.sampled_from(KINDS))
def test_any_bytes_are_rows_or_named_by_their_line(content: bytes, kind: str) -> None:
    for row in read(content, kind):
        if isinstance(row, BadRow):
            assert re.match(rf"rows{re.escape(kind)}(:\d+)?$", row.origin)
            assert row.reason


@quick
@given(
    st.lists(objects, min_size=1, max_size=4),
    st.sampled_from(["utf-16", "utf-32", "cp037", "utf-8-sig", "latin-1"]),
    st.sampled_from(KINDS[:3]),
)
def test_another_encoding_is_named_and_never_read_as_other_text(
    rows: list[Any], encoding: str, kind: str
) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)  # ASCII: every encoding has it
    for row in read(text.encode(encoding), kind):
        if isinstance(row, Row) and kind == ".jsonl":
            assert row.values in rows
        assert re.match(rf"rows{re.escape(kind)}(:\d+)?$", row.origin)


@quick
@given(objects)
def test_any_object_is_a_conversation_of_clean_text_or_unusable(row: dict[str, Any]) -> None:
    try:
        conversation = to_conversation(row)
    except UnusableRowError:
        return
    json.dumps(conversation.to_dict(), ensure_ascii=False).encode()
    for message in conversation.messages:
        assert message.content.strip() or message.role in ("system", "developer", "tool")
        assert "\x00" not in message.content


def test_nested_nulls_and_mixed_types_of_parquet_are_named(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"messages": [{"role": "user", "content": None}, None]},
        {"messages": None},
        {"messages": []},
    ]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)

    for row in read_rows(str(path)):
        assert isinstance(row, Row)
        with pytest.raises(UnusableRowError):
            to_conversation(row.values)


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    rows = [{"text": f"row {number} " * 20} for number in range(500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="gzip")
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        list(read_rows(str(path)))

    assert str(caught.value).startswith(f"{path}: is not a readable Parquet file: ")


# --- sizes -------------------------------------------------------------------------------------

# In a process of its own, which may take so much memory and no more.
_BOUNDED = """
import resource, sys
from llm_engineering.data.read.sources import read_rows
from llm_engineering.errors import DataError
import pyarrow  # before the limit: its pools take address space
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + {room}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    for row in read_rows(sys.argv[1]):
        print(row.origin.rpartition("/")[2], getattr(row, "reason", "row"))
except DataError as error:
    print(str(error).rpartition("/")[2])
"""


def read_bounded(path: Path, room: int) -> list[str]:
    code = _BOUNDED.format(room=room)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ROW = b'{"text": "a"}\n'
MB = 2**20


@pytest.mark.parametrize("size", [100 * MB, 300 * MB])
def test_an_endless_line_is_one_bad_row_and_never_in_memory(size: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(ROW)
        for _ in range(size // MB):
            file.write(bytes(MB))
        file.write(b"\n" + ROW)
    assert path.stat().st_size < size / 100

    assert read_bounded(path, 96 * MB) == [
        "rows.jsonl.gz:1 row",
        "rows.jsonl.gz:2 is longer than 16 MiB",
        "rows.jsonl.gz:3 row",
    ]


@pytest.mark.parametrize(
    ("kind", "begin", "fill", "message"),
    [
        (".json", b'[\n{"text": "', b"a", "rows.json.gz:2: is longer than 16 MiB, or is not JSON"),
        (".json", b"[\n", b" ", "rows.json.gz:2: is not JSON: Expecting value"),
        (".csv", b"text,b\n1,2\n", b"a", "rows.csv.gz:3: is longer than 16 MiB"),
        (".csv", b'text,b\n1,2\n1,"', b"a" * 1023 + b"\n", "rows.csv.gz:"),
    ],
)
def test_what_expands_without_end_is_refused_within_bounds(
    kind: str, begin: bytes, fill: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{kind}.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(begin)
        for _ in range(64):
            file.write(fill * (MB // len(fill)))

    assert read_bounded(path, 256 * MB)[-1].startswith(message)


def test_a_long_row_within_the_bound_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    text = "ä" * (7 * MB)
    path.write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n")

    (row,) = read_rows(str(path))

    assert isinstance(row, Row)
    assert row.values == {"text": text}
