"""Locating a base model: what is refused before anything heavy is loaded, and digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import (
    file_digest,
    model_folder,
    read_config,
    require_positions,
    weight_digests,
    weight_files,
)

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


# --- the Hub's cache ---------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = ModelSettings(id="owner/name")


@pytest.fixture
def cached(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model as the Hub's cache holds it, with its weights in a second form; offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    files["consolidated.safetensors"] = files["model.safetensors"]
    for name, content in files.items():
        blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    return snapshot


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_offline_a_complete_cache_is_all_that_is_needed(cached: Path, revision: str | None) -> None:
    weights, hub = cached / "model.safetensors", HUB.model_copy(update={"revision": revision})

    assert model_folder(hub, weights=True) == cached
    assert weight_digests(hub) == {"model.safetensors": weights.resolve().name}
    assert [path.name for path in weight_files(cached)] == ["model.safetensors"]


def test_offline_without_the_weights_the_hub_is_asked_in_vain(cached: Path) -> None:
    for path in cached.glob("*.safetensors"):
        path.unlink()

    with pytest.raises(ModelError, match="the Hub did not give it"):
        weight_digests(HUB)


def test_the_hub_is_asked_for_the_commit_that_is_here_and_the_files_of_the_index(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (cached / "model.safetensors.index.json").write_text(json.dumps(index))
    asked = []

    class Api:
        def model_info(self, model: str, *, revision: str, files_metadata: bool) -> Any:
            asked.append((model, revision))
            files = [*names, "consolidated.safetensors", "tokenizer.json"]
            return SimpleNamespace(
                siblings=[
                    SimpleNamespace(rfilename=name, lfs=SimpleNamespace(sha256=name[:7]))
                    for name in files
                ]
            )

    monkeypatch.setattr("huggingface_hub.HfApi", Api)

    assert weight_digests(HUB) == dict.fromkeys(names, "model-0")
    assert asked == [("owner/name", COMMIT)]


@pytest.mark.parametrize("indexed", [True, False])
def test_only_the_weights_that_are_read_are_fetched(
    cached: Path, monkeypatch: pytest.MonkeyPatch, indexed: bool
) -> None:
    wanted = "model-00001-of-00001.safetensors" if indexed else "model.safetensors"
    (cached / "model.safetensors").unlink()
    if indexed:
        index = {"weight_map": {"a": wanted}}
        (cached / "model.safetensors.index.json").write_text(json.dumps(index))
    fetched: list[str] = []

    def download(model: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.extend(allow_patterns)
        if wanted in allow_patterns:
            (cached / wanted).touch()
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model_folder(HUB, weights=True)

    assert [name for name in fetched if name.endswith(".safetensors")] == [wanted]


# --- positions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_rows_longer_than_the_model_has_positions(model: Path, nested: bool) -> None:
    config = json.loads((model / "config.json").read_text())
    if nested:
        config = {"text_config": config}
    (model / "config.json").write_text(json.dumps(config))
    require_positions(ModelSettings(id=str(model), max_seq_length=512))

    with pytest.raises(ModelError, match=r"513 tokens are more than the 512 .* to at most 512"):
        require_positions(ModelSettings(id=str(model), max_seq_length=513))


def test_a_model_that_states_no_positions_is_let_pass(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["max_position_embeddings"]
    (model / "config.json").write_text(json.dumps(config))

    require_positions(ModelSettings(id=str(model), max_seq_length=100_000))
