"""A model archive is taken whole and as the job saved it, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.model_archive import extract, verify_inventory, write_inventory

FILES = {"adapter/adapter_model.safetensors": b"weights" * 9000, "report.html": b"<html>"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with its inventory, as a job leaves it."""
    folder = tmp_path / "saved"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_inventory(folder)
    return folder


def pack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=".")
    return archive


def member(name: str, content: bytes = b"x", **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def craft(archive: Path, *members: tarfile.TarInfo) -> Path:
    """An archive with one good file, then the given members."""
    with tarfile.open(archive, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for info in (member("good.txt"), *members):
            is_file = info.isreg() and info.size > 0
            tar.addfile(info, io.BytesIO(b"x" * info.size) if is_file else None)
    return archive


# --- extraction --------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True])
def test_a_good_archive_comes_out_as_it_went_in(exists: bool, model: Path, tmp_path: Path) -> None:
    archive, folder = pack(tmp_path / "model.tar.gz", model), tmp_path / "deep" / "out"
    if exists:
        folder.mkdir(parents=True)

    extract(archive, folder)

    verify_inventory(folder)
    for name, content in FILES.items():
        assert (folder / name).read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter", "inventory.json", "report.html",
    ]  # fmt: skip
    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_extracted_never_lies_on_another_disk(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the folder for temporary files does, from which nothing can be moved into place."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))

    extract(pack(tmp_path / "model.tar.gz", model), tmp_path / "out")

    verify_inventory(tmp_path / "out")


def test_folders_may_be_told_before_or_after_what_is_in_them(tmp_path: Path) -> None:
    folders = [member(name, b"", type=tarfile.DIRTYPE) for name in ("x/y/z", "x", "a")]
    archive = craft(tmp_path / "m.tar.gz", member("a/b/c"), *folders, member("x/y/z/file"))

    extract(archive, tmp_path / "out")

    assert sorted(
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    ) == ["a/b/c", "good.txt", "x/y/z/file"]
    assert (tmp_path / "out" / "x" / "y" / "z" / "file").read_bytes() == b"x"


@pytest.mark.parametrize(("max_bytes", "fits"), [(1000, True), (999, False)])
def test_so_many_bytes_may_all_files_have(max_bytes: int, fits: bool, tmp_path: Path) -> None:
    archive = craft(tmp_path / "m.tar.gz", member("a", b"x" * 600), member("b", b"x" * 399))

    if fits:
        extract(archive, tmp_path / "out", max_bytes=max_bytes)
        assert (tmp_path / "out" / "b").stat().st_size == 399
    else:
        with pytest.raises(LaunchError, match="'b' takes the archive over 999 bytes"):
            extract(archive, tmp_path / "out", max_bytes=max_bytes)


def test_a_file_where_the_folder_would_be_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(LaunchError, match="out: is not an empty folder"):
        extract(pack(tmp_path / "model.tar.gz", model), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_permissions_of_the_archive_are_not_taken(tmp_path: Path) -> None:
    archive = craft(tmp_path / "m.tar.gz", member("run.sh", mode=0o6777))
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o7111 == 0


EVIL: dict[str, tuple[tarfile.TarInfo, str]] = {
    "absolute": (member("/etc/cron.d/evil"), "'/etc/cron.d/evil' is an absolute path"),
    "parent": (member("../evil"), "'../evil' leads out of the folder"),
    "parent inside": (member("a/../../evil"), "'a/../../evil' leads out of the folder"),
    "symbolic link": (
        member("adapter", b"", type=tarfile.SYMTYPE, linkname="/etc"),
        "'adapter' is a link to '/etc'",
    ),
    "hard link": (
        member("passwd", b"", type=tarfile.LNKTYPE, linkname="good.txt"),
        "'passwd' is a link to 'good.txt'",
    ),
    "device": (
        member("mem", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=1),
        "'mem' is a device or another special file",
    ),
    "block device": (
        member("sda", b"", type=tarfile.BLKTYPE, devmajor=8, devminor=0),
        "'sda' is a device or another special file",
    ),
    "pipe": (
        member("pipe", b"", type=tarfile.FIFOTYPE),
        "'pipe' is a device or another special file",
    ),
    "duplicate": (member("good.txt"), "'good.txt' is there twice"),
    "duplicate spelt otherwise": (member("./good.txt"), "'./good.txt' is there twice"),
    "file in a file": (member("good.txt/more"), "'good.txt/more' lies in a file"),
    "too large": (
        member("big.bin", b"x" * 1000),
        "'big.bin' takes the archive over 1,000 bytes uncompressed",
    ),
}


@pytest.mark.parametrize(("evil", "message"), EVIL.values(), ids=EVIL)
def test_an_evil_member_is_named_and_nothing_is_left(
    evil: tarfile.TarInfo, message: str, tmp_path: Path
) -> None:
    archive, folder = craft(tmp_path / "model.tar.gz", evil), tmp_path / "out" / "model"
    with pytest.raises(LaunchError) as caught:
        extract(archive, folder, max_bytes=1000)
    assert str(caught.value) == f"{archive}: {message}; nothing was extracted"
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.tar.gz", "out"]


def test_a_folder_that_becomes_a_file_is_refused(tmp_path: Path) -> None:
    archive = craft(tmp_path / "m.tar.gz", member("a/b"), member("a"))
    with pytest.raises(LaunchError, match="'a' is there twice"):
        extract(archive, tmp_path / "out")


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    """Its size in the archive says nothing of its size on the disk."""
    info = member("huge", b"", type=tarfile.GNUTYPE_SPARSE)
    archive = tmp_path / "m.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(LaunchError, match="'huge' is a sparse file"):
        extract(archive, tmp_path / "out")


def test_a_negative_size_does_not_make_room(tmp_path: Path) -> None:
    header = bytearray(member("minus").tobuf(format=tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x9c"  # base 256: -100
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    archive = tmp_path / "m.tar.gz"
    archive.write_bytes(gzip.compress(bytes(header) + b"\0" * 1024))
    # From Python 3.13 on tarfile itself refuses the header.
    with pytest.raises(LaunchError, match=r"'minus' has a negative size|is no tar\.gz"):
        extract(archive, tmp_path / "out")


def test_a_bomb_stops_at_the_cap(tmp_path: Path) -> None:
    """100 MB of zeros are 100 kB compressed."""
    archive = tmp_path / "m.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for index in range(10):
            tar.addfile(member(f"zeros{index}", b"\0" * 10_000_000), io.BytesIO(b"\0" * 10_000_000))
    assert archive.stat().st_size < 200_000
    with pytest.raises(LaunchError, match="'zeros2' takes the archive over 25,000,000 bytes"):
        extract(archive, tmp_path / "out", max_bytes=25_000_000)
    assert not (tmp_path / "out").exists()


def damage(archive: Path, how: str) -> None:
    content = archive.read_bytes()
    archive.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "no gzip": b"<Error><Code>AccessDenied</Code></Error>",
            "empty": b"",
        }[how]
    )


@pytest.mark.parametrize("how", ["cut", "no gzip", "empty"])
def test_a_damaged_archive_is_refused(how: str, model: Path, tmp_path: Path) -> None:
    (model / "noise.bin").write_bytes(os.urandom(20_000))
    archive = pack(tmp_path / "model.tar.gz", model)
    damage(archive, how)
    with pytest.raises(LaunchError, match=r"model\.tar\.gz: is cut, or is no tar\.gz \("):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(model: Path, tmp_path: Path) -> None:
    archive, folder = pack(tmp_path / "model.tar.gz", model), tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(LaunchError, match="out: is not an empty folder"):
        extract(archive, folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


# --- inventory ---------------------------------------------------------------------------------


def test_the_inventory_lists_every_file_with_its_digest(model: Path) -> None:
    assert json.loads((model / "inventory.json").read_text()) == {
        name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()
    }
    assert write_inventory(model) == model / "inventory.json"
    verify_inventory(model)  # written again, it does not list itself


def remove(model: Path) -> None:
    (model / "report.html").unlink()


def add(model: Path) -> None:
    (model / "adapter" / "extra.py").write_text("")


def alter(model: Path) -> None:
    (model / "report.html").write_bytes(b"<HTML>")


def link(model: Path) -> None:
    (model / "link").symlink_to("report.html")


def spoil(model: Path) -> None:
    (model / "inventory.json").write_text("{")


def shorten(model: Path) -> None:
    (model / "inventory.json").write_text('["report.html"]')


def number(model: Path) -> None:
    (model / "inventory.json").write_text('{"report.html": 1}')


def pipe(model: Path) -> None:
    os.mkfifo(model / "pipe")


def lose(model: Path) -> None:
    (model / "inventory.json").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove, r"missing: report\.html\)"),
        (add, r"not listed: adapter/extra\.py\)"),
        (alter, r"altered: report\.html \(sha256 [0-9a-f]{64}, listed [0-9a-f]{64}\)"),
        (link, r"link: is a link or a special file"),
        (spoil, r"inventory\.json: is not JSON"),
        (shorten, r"inventory\.json: is no table of digests"),
        (number, r"inventory\.json: is no table of digests"),
        (pipe, r"pipe: is a link or a special file"),
        (lose, r"has no inventory\.json, so the job did not save all of it"),
    ],
)
def test_any_difference_is_named(change: Callable[[Path], None], message: str, model: Path) -> None:
    change(model)
    with pytest.raises(LaunchError, match=message):
        verify_inventory(model)


def test_all_differences_are_named_at_once(model: Path) -> None:
    remove(model)
    add(model)
    with pytest.raises(LaunchError, match=r"missing: report\.html; not listed: adapter/extra\.py"):
        verify_inventory(model)


def test_a_link_is_not_saved(model: Path) -> None:
    link(model)
    with pytest.raises(LaunchError, match="only plain files are saved"):
        write_inventory(model)
