"""The files that a source names, compressed or not, here or behind a URL, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.read.files import find_files
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.sources import read_rows
from llm_engineering.errors import DataError

FIRST = {"instruction": "What is 1 + 1?", "response": "Two."}
SECOND = {"instruction": "Größe, bitte", "response": "日本"}
LINES = "".join(json.dumps(row) + "\n" for row in (FIRST, SECOND)).encode()


def zstd(content: bytes) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def names(source: str) -> list[str]:
    return [file.name for file in find_files(source)]


def refusal(source: str) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(source))
    return str(caught.value)


# --- compressed --------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (".jsonl", LINES),
        (".json", json.dumps([FIRST, SECOND], indent=1).encode()),
        (".csv", b"instruction,response\nWhat is 1 + 1?,Two.\n" + "Größe,日本\n".encode()),
    ],
)
def test_a_compressed_file_gives_the_rows_of_the_plain_one(
    kind: str, content: bytes, suffix: str, compress: Any, tmp_path: Path
) -> None:
    plain, packed = tmp_path / f"rows{kind}", tmp_path / f"rows{kind}{suffix}"
    plain.write_bytes(content)
    packed.write_bytes(compress(content))

    found = list(read_rows(str(packed)))

    assert [row.origin for row in found] == [
        row.origin.replace(str(plain), str(packed)) for row in read_rows(str(plain))
    ]
    assert [row.values for row in found if isinstance(row, Row)] == [
        row.values for row in read_rows(str(plain)) if isinstance(row, Row)
    ]
    assert len(found) == 2


def test_gzip_members_and_zstd_frames_may_follow_each_other(tmp_path: Path) -> None:
    for suffix, compress in ((".gz", gzip.compress), (".zst", zstd)):
        path = tmp_path / f"rows.jsonl{suffix}"
        path.write_bytes(compress(LINES) + compress(LINES))

        assert len(list(read_rows(str(path)))) == 4


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd)])
@pytest.mark.parametrize("damage", [slice(None, -6), slice(3, None)])
def test_a_damaged_compressed_file_names_the_line_it_can_be_read_to(
    damage: slice, suffix: str, compress: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    content = compress(b"".join(b'{"text": "%d"}\n' % n for n in range(30_000)))
    path.write_bytes(content[damage])

    message = refusal(str(path))

    place, _, reason = message.partition(": ")
    assert place.startswith(f"{path}:")
    assert 1 <= int(place.rpartition(":")[2]) <= 30_001
    assert reason.startswith("cannot be read from here on (")


def test_a_compressed_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet.gz"
    path.write_bytes(gzip.compress(b"PAR1"))

    assert "unknown kind '.gz'" in refusal(str(path))


# --- folders and globs -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    for name in ("b.jsonl", "a/z.jsonl.gz", "c.csv", "README.md", ".hidden/x.jsonl", "a/.y.jsonl"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(LINES) if name.endswith(".gz") else LINES)
    return folder


def test_a_folder_is_its_data_files_at_any_depth_in_order(folder: Path) -> None:
    assert names(str(folder)) == [
        f"{folder}/{name}" for name in ("a/z.jsonl.gz", "b.jsonl", "c.csv")
    ]


def test_a_glob_is_what_matches_in_order(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(LINES)

    assert names(f"{folder}/*.jsonl") == [f"{folder}/a.jsonl", f"{folder}/b.jsonl"]
    assert names(f"{folder}/**/*.jsonl*") == [
        f"{folder}/{name}" for name in ("a.jsonl", "a/z.jsonl.gz", "b.jsonl")
    ]
    rows = list(read_rows(f"{folder}/*.jsonl"))
    assert [row.origin for row in rows] == [
        f"{folder}/{name}:{line}" for name in ("a.jsonl", "b.jsonl") for line in (1, 2)
    ]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "rows[1].jsonl"
    path.write_bytes(LINES)

    assert names(str(path)) == [str(path)]


def test_what_a_folder_or_glob_cannot_give(folder: Path) -> None:
    (folder / "empty.jsonl").touch()

    assert refusal(f"{folder}/*.none") == f"data source {folder}/*.none: no file matches"
    assert "unknown kind '.md'" in refusal(f"{folder}/*.md")
    assert refusal(str(folder)) == f"data source {folder}/empty.jsonl: the file is empty"


def test_a_name_that_is_no_text_or_steers_a_terminal_is_shown_escaped(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\x1b[2J.jsonl"
    with open(path, "wb") as file:
        file.write(LINES)

    (found,) = find_files(str(tmp_path))

    assert found.name.isprintable()
    assert [row.origin for row in read_rows(str(tmp_path))] == [
        f"{found.name}:1",
        f"{found.name}:2",
    ]


# --- behind a URL ------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[Any]:
    import fsspec

    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def test_files_behind_a_url(memory: Any) -> None:
    memory.pipe(
        {"/bucket/b.jsonl.gz": gzip.compress(LINES), "/bucket/a.jsonl": LINES, "/bucket/x.md": b"-"}
    )

    assert names("memory://bucket/a.jsonl") == ["memory://bucket/a.jsonl"]
    assert names("memory://bucket/*.gz") == ["memory://bucket/b.jsonl.gz"]
    assert names("memory://bucket") == ["memory://bucket/a.jsonl", "memory://bucket/b.jsonl.gz"]
    assert list(read_rows("memory://bucket"))[2] == Row("memory://bucket/b.jsonl.gz:1", FIRST)


def test_a_parquet_file_behind_a_url(memory: Any, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([FIRST, SECOND]), path)
    memory.pipe("/rows.parquet", path.read_bytes())

    assert list(read_rows("memory://rows.parquet")) == [
        Row("memory://rows.parquet:row 1", FIRST),
        Row("memory://rows.parquet:row 2", SECOND),
    ]


def test_a_url_that_leads_nowhere(memory: Any) -> None:
    assert refusal("memory://none.jsonl").startswith(
        "data source memory://none.jsonl: no such file"
    )
    assert refusal("memory://none/*.jsonl") == "data source memory://none/*.jsonl: no file matches"
    assert "Protocol not known: nowhere" in refusal("nowhere://rows.jsonl")
    assert "pip install that package" in refusal("abfs://container/rows.jsonl")


def test_a_bucket_of_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    try:
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="rows")
        s3.put_object(Bucket="rows", Key="train/a.jsonl", Body=LINES)
        s3.put_object(Bucket="rows", Key="train/b.jsonl.gz", Body=gzip.compress(LINES))

        assert names("s3://rows/train/*.jsonl") == ["s3://rows/train/a.jsonl"]
        found = list(read_rows("s3://rows/train"))
        (file,) = find_files("s3://rows/train/a.jsonl")
        before = file.version()
        s3.put_object(Bucket="rows", Key="train/a.jsonl", Body=LINES * 2)
        (file,) = find_files("s3://rows/train/a.jsonl")

        assert [row.origin for row in found] == [
            f"s3://rows/train/{name}:{line}"
            for name in ("a.jsonl", "b.jsonl.gz")
            for line in (1, 2)
        ]
        assert not any(isinstance(row, BadRow) for row in found)
        assert file.version() != before
        assert "no such file" in refusal("s3://rows/none.jsonl")
        assert refusal("s3://no-bucket/a.jsonl").startswith("data source s3://no-bucket/a.jsonl: ")
    finally:
        server.stop()
