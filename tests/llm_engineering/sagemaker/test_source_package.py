"""What is sent as source: the package's own files, all of them, and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from llm_engineering.errors import LaunchError, SecretError
from llm_engineering.sagemaker.source_package import pack_source, stage_source

ROOT = Path(__file__).resolve().parents[3]

SENT = {
    "llm_engineering/__init__.py": '"""Doc."""\n',
    "llm_engineering/data/templates/chatml.jinja": "{{ messages }}\n",
    "llm_engineering/reporting/report.css": "body {}\n",
    "llm_engineering/model/train.py": "x = 1  # 1 × 1\n",
}
KEPT = [
    ".env",
    ".git/config.py",
    "outputs/run/a.py",
    "data/rows.jsonl",
    "models/tiny/model.safetensors",
    "tests/test_a.py",
    "llm_engineering/.env",
    "llm_engineering/.ipynb_checkpoints/train.py",
    "llm_engineering/__pycache__/train.py",
    "llm_engineering/__pycache__/train.cpython-312.pyc",
    "llm_engineering/model/weights.safetensors",
    "llm_engineering/data/rows.jsonl",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name in KEPT:
        write(root / name, "kept\n")
    for name, text in SENT.items():
        write(root / name, text)
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_source_and_extra_files_are_staged_and_nothing_else(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "staged"

    listing = stage_source(project, folder, {"requirements.txt": "peft==0.21.2\n"})

    expected = {**SENT, "requirements.txt": "peft==0.21.2\n"}
    assert files_in(folder) == expected
    sizes = {name: len(text.encode()) for name, text in expected.items()}
    assert listing.files == sizes
    assert list(listing.files) == sorted(sizes)
    assert listing.total_bytes == sum(sizes.values())


def test_the_digest_is_over_sorted_names_and_contents(project: Path, tmp_path: Path) -> None:
    listing = stage_source(project, tmp_path / "a", {})

    digest = hashlib.sha256()
    for name in sorted(SENT):
        content = SENT[name].encode()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    assert listing.digest == digest.hexdigest()
    assert stage_source(project, tmp_path / "b", {}).digest == listing.digest


@pytest.mark.parametrize("change", ["content", "name", "extra"])
def test_any_change_changes_the_digest(change: str, project: Path, tmp_path: Path) -> None:
    before = stage_source(project, tmp_path / "a", {}).digest
    train = project / "llm_engineering" / "model" / "train.py"
    if change == "content":
        write(train, "x = 2  # 1 × 1\n")
    elif change == "name":
        train.rename(train.with_name("trainer.py"))
    extra = {"requirements.txt": ""} if change == "extra" else {}
    assert stage_source(project, tmp_path / "b", extra).digest != before


def test_this_project_s_source_is_whole_and_imports_where_it_is_staged(tmp_path: Path) -> None:
    folder = tmp_path / "staged"
    listing = stage_source(ROOT, folder, {})

    code = "import llm_engineering.configuration.load as load; print(load.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert Path(result.stdout.strip()).is_relative_to(folder)
    assert 30 < len(listing.files) < 500
    assert listing.total_bytes < 2_500_000
    assert "llm_engineering/training/run.py" in listing.files
    assert "llm_engineering/model/chat_templates/chatml.jinja" in listing.files
    assert "llm_engineering/reporting/templates/report/report.css" in listing.files
    reporting = ROOT / "llm_engineering" / "reporting" / "templates"  # a job writes a report too
    for path in (path for path in reporting.rglob("*") if path.is_file()):
        assert path.relative_to(ROOT).as_posix() in listing.files


def test_a_secret_in_the_source_is_refused_and_nothing_staged(
    project: Path, tmp_path: Path
) -> None:
    token = "hf" + "_" + "aB3dE6gH9" * 4
    write(project / "llm_engineering" / "model" / "hub.py", f"a = 1\nlogin({token!r})\n")
    with pytest.raises(SecretError, match=r"^llm_engineering/model/hub\.py:2: .*Hugging Face"):
        stage_source(project, tmp_path / "staged", {})
    assert not (tmp_path / "staged").exists()


def test_a_secret_in_an_extra_file_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"^job\.yaml:1: .*GitHub"):
        stage_source(project, tmp_path / "staged", {"job.yaml": "gh" + "p_" + "aB3dE6gH9" * 4})


def test_too_much_source_is_refused_with_the_largest_files(project: Path, tmp_path: Path) -> None:
    for name, size in {"a": 1_000_000, "b": 3_000_000, "c": 900_000, "d": 800_000}.items():
        write(project / "llm_engineering" / f"{name}.py", "#" * size)
    with pytest.raises(LaunchError) as caught:
        stage_source(project, tmp_path / "staged", {})
    total = 5_700_000 + sum(len(text.encode()) for text in SENT.values())
    assert str(caught.value) == (
        f"the source of the job has {total:,} bytes, more than 5,000,000; move what is no source "
        "out of llm_engineering/. The largest files: llm_engineering/b.py (3,000,000), "
        "llm_engineering/a.py (1,000,000), llm_engineering/c.py (900,000)"
    )
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize("kind", ["file outside", "folder outside", "broken"])
def test_a_link_out_of_the_package_is_refused(kind: str, project: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside / "private.py", "x = 1\n")
    target = {"file outside": outside / "private.py", "folder outside": outside}.get(
        kind, tmp_path / "gone.py"
    )
    link = project / "llm_engineering" / "link.py"
    link.symlink_to(target)
    with pytest.raises(LaunchError) as caught:
        stage_source(project, tmp_path / "staged", {})
    assert str(caught.value).startswith(f"{link}: is a link to {target}, which is not sent")
    assert not (tmp_path / "staged").exists()


def test_a_link_to_a_file_of_the_package_is_sent_as_that_file(
    project: Path, tmp_path: Path
) -> None:
    (project / "llm_engineering" / "also.py").symlink_to("model/train.py")
    stage_source(project, tmp_path / "staged", {})
    staged = tmp_path / "staged" / "llm_engineering" / "also.py"
    assert not staged.is_symlink()
    assert staged.read_text() == SENT["llm_engineering/model/train.py"]


def test_a_folder_with_something_in_it_is_refused(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "staged" / "stale.py", "x = 1\n")
    with pytest.raises(LaunchError, match="is not empty, and all in it would be sent"):
        stage_source(project, tmp_path / "staged", {})


def test_a_project_without_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="holds no source"):
        stage_source(tmp_path, tmp_path / "staged", {"requirements.txt": "peft==0.21.2\n"})


@pytest.mark.parametrize("name", ["../a.py", "/a.py", "llm_engineering/__init__.py"])
def test_an_extra_file_has_a_path_of_its_own_inside(
    name: str, project: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="not a new path inside the source"):
        stage_source(project, tmp_path / "staged", {name: ""})


def test_packed_source_has_the_same_bytes_whenever_it_is_packed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_source(project, tmp_path / "staged", {"requirements.txt": "peft==0.21.2\n"})
    first = pack_source(tmp_path / "staged", tmp_path / "first")
    for path in (tmp_path / "staged").rglob("*"):
        os.utime(path, (1, 1))
    monkeypatch.setattr("time.time", lambda: 4e9)
    second = pack_source(tmp_path / "staged", tmp_path / "second")
    for name in ("source.tar.gz", "start.py"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    with tarfile.open(first / "source.tar.gz") as archive:
        names = archive.getnames()
    assert names == sorted([*SENT, "requirements.txt"])
