"""Locating a base model: what is refused before anything heavy is loaded, and digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import file_digest, model_folder, read_config, weight_files

ANEW = "fetch the model anew"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for remembered digests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "llm-engineering-finetuning" / "digests"


def refusal(model_id: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        model_folder(ModelSettings(id=str(model_id)), weights=True)
    return str(caught.value)


def weights_refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        weight_files(folder)
    return str(caught.value)


def write_weights(path: Path, header: Any, tensors: bytes = b"") -> Path:
    """A file in the safetensors layout: the header's length, the header, the tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    return path


def shard(bytes_: int) -> dict[str, Any]:
    return {"w": {"dtype": "U8", "shape": [bytes_], "data_offsets": [0, bytes_]}}


# --- the folder --------------------------------------------------------------------------------


def test_a_folder_is_found(tiny_model: Path) -> None:
    assert model_folder(ModelSettings(id=str(tiny_model)), weights=True) == tiny_model


def test_a_folder_is_found_from_home(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_model.parent))

    assert model_folder(ModelSettings(id="~/tiny"), weights=True) == tiny_model


def test_a_folder_wins_over_a_hub_id(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)

    assert model_folder(ModelSettings(id="owner/name"), weights=True) == Path("owner/name")


def test_the_embedded_model_is_made_by_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert refusal("models/SmolLM2-135M-Instruct") == (
        "model.id: no folder models/SmolLM2-135M-Instruct; run `make model`"
    )


@pytest.mark.parametrize("name", ["gpt2", "a/b/c", "/nowhere/model", "here/model", "models"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()  # 'here/model' is a path: its parent is there
    hint = "; run `make model`" if name == "models" else ", and not a Hub id owner/name"

    assert refusal(name) == f"model.id: no folder {name}{hint}"


def test_a_hub_model_that_cannot_be_had() -> None:
    message = refusal("nobody/nothing-here")

    assert message.startswith(
        "model.id: nobody/nothing-here is no folder here, and the Hub did not give it "
        "(LocalEntryNotFoundError: "
    )
    assert message.endswith(
        "); check the id, model.revision, the network and, for a gated model, your Hub login"
    )


def test_a_folder_without_a_config_is_no_model(model: Path) -> None:
    (model / "config.json").unlink()

    assert refusal(model) == f"model.id: {model} has no config.json, so it is no model folder"


def test_the_config_is_read(tiny_model: Path) -> None:
    config = read_config(tiny_model)

    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["vocab_size"] == 600


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
        ("[]", "expected an object"),
    ],
)
def test_a_config_that_is_no_object(text: str, reason: str, model: Path) -> None:
    (model / "config.json").write_text(text)

    with pytest.raises(ModelError) as caught:
        read_config(model)

    assert str(caught.value).startswith(f"{model}/config.json: {reason}")


# --- the weights -------------------------------------------------------------------------------


def test_the_weights_of_one_file(tiny_model: Path) -> None:
    assert weight_files(tiny_model) == [tiny_model / "model.safetensors"]


def test_the_shards_that_the_index_names(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "two.safetensors", "b": "one.safetensors", "c": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    one = write_weights(tmp_path / "one.safetensors", shard(3), b"abc")
    two = write_weights(tmp_path / "two.safetensors", shard(1), b"d")
    write_weights(tmp_path / "unnamed.safetensors", shard(9))

    assert weight_files(tmp_path) == [one, two]


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    write_weights(tmp_path / "one.safetensors", shard(3), b"abc")

    assert weights_refusal(tmp_path) == (
        f"model.id: {tmp_path}/two.safetensors is missing (the index names it); {ANEW}"
    )


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none(text: str, model: Path) -> None:
    index = model / "model.safetensors.index.json"
    index.write_text(text)

    assert weights_refusal(model) == f"{index}: is not an index of safetensors files; {ANEW}"


def test_a_model_in_another_weight_format(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")

    assert weights_refusal(model) == (
        f"model.id: {model} holds no .safetensors file; other weight formats are not read"
    )


@pytest.mark.parametrize("change", [-1, -1000, 1])
def test_weights_that_are_cut_or_too_long(change: int, model: Path) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:change] if change < 0 else whole + b"x" * change)

    assert weights_refusal(model) == (
        f"{path}: has {len(whole) + change} bytes, its header says {len(whole)}; {ANEW}"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"w": []}',
        struct.pack("<Q", 9) + b'{"w": {}}',
        struct.pack("<Q", 27) + b'{"w": {"data_offsets": []}}',
    ],
    ids=repr,
)
def test_a_file_that_is_no_safetensors(content: bytes, model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(content)

    assert weights_refusal(model) == f"{path}: is not a safetensors file; {ANEW}"


# --- digests -----------------------------------------------------------------------------------


def test_a_digest_is_the_sha_256_of_the_content(tmp_path: Path, remembered: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")

    assert file_digest(path) == hashlib.sha256(b"content").hexdigest()
    assert [file.read_text() for file in remembered.iterdir()] == [file_digest(path)]


def test_a_file_is_read_once(tmp_path: Path, remembered: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    digest = file_digest(path)
    modified = path.stat().st_mtime_ns

    # Other bytes, but the same size and time: were the file read again, the digest would differ.
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(modified, modified))

    assert file_digest(path) == digest
    assert len(list(remembered.iterdir())) == 1


@pytest.mark.parametrize("content", [b"CONTENT", b"longer content"])
def test_a_changed_file_has_a_new_digest(content: bytes, tmp_path: Path, remembered: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    digest = file_digest(path)
    modified = path.stat().st_mtime_ns

    path.write_bytes(content)
    os.utime(path, ns=(modified + 1_000_000, modified + 1_000_000))

    assert file_digest(path) == hashlib.sha256(content).hexdigest() != digest
    assert len(list(remembered.iterdir())) == 2


@pytest.mark.parametrize("length", [0, 20])
def test_a_half_written_memory_is_not_believed(
    length: int, tmp_path: Path, remembered: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    digest = file_digest(path)
    next(remembered.iterdir()).write_text(digest[:length])

    assert file_digest(path) == digest
    assert next(remembered.iterdir()).read_text() == digest


def test_a_digest_needs_no_place_to_be_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where the cache's folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(b"content")

    assert file_digest(path) == hashlib.sha256(b"content").hexdigest()


def test_a_file_of_the_hubs_cache_is_not_read(tmp_path: Path, remembered: Path) -> None:
    name = hashlib.sha256(b"what the Hub calls it").hexdigest()
    blob = tmp_path / "blobs" / name
    blob.parent.mkdir()
    blob.write_bytes(b"other content")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)

    assert file_digest(link) == name
    assert not remembered.exists()
