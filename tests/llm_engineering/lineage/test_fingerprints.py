"""Each fingerprint changes when, and only when, what it stands for does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.read.files import WHAT_TO_GIVE
from llm_engineering.errors import ConfigError, DataError, ModelError
from llm_engineering.lineage.fingerprints import Fingerprints, take_fingerprints

PACKAGE = Path(__file__).resolve().parents[3] / "llm_engineering"

MakeConfig = Callable[..., FinetuningConfig]


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def config(model: Path, make_config: MakeConfig) -> FinetuningConfig:
    return make_config({"model.id": str(model)})


def changed(before: Fingerprints, after: Fingerprints) -> set[str]:
    return {
        name for name in Fingerprints.model_fields if getattr(before, name) != getattr(after, name)
    }


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_nothing_changes_when_nothing_does(config: FinetuningConfig) -> None:
    first, second = take_fingerprints(config), take_fingerprints(config)

    assert first == second
    assert {len(value) for value in first.model_dump(exclude={"start"}).values()} == {64}
    assert first.start == ""
    assert len(set(first.model_dump().values())) == 4


# --- the data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_changed_data_file_changes_the_data_alone(split: str, config: FinetuningConfig) -> None:
    before = take_fingerprints(config)
    source = config.data.sources[0].source if split == "train" else config.data.held_out.source

    append(Path(str(source)), b'{"instruction": "a", "response": "b"}\n')

    assert changed(before, take_fingerprints(config)) == {"data"}


def test_a_data_file_that_is_only_touched_or_moved_changes_nothing(
    config: FinetuningConfig, make_config: MakeConfig, tmp_path: Path
) -> None:
    before = take_fingerprints(config)
    source = Path(config.data.sources[0].source)

    os.utime(source, ns=(1, 1))
    touched = take_fingerprints(config)
    moved = take_fingerprints(
        make_config(
            {
                "model.id": config.model.id,
                "data.sources": [
                    {"source": str(shutil.copy(source, tmp_path / "elsewhere.jsonl"))}
                ],
            }
        )
    )

    assert before == touched == moved


def test_the_order_of_the_sources_is_part_of_the_data(make_config: MakeConfig) -> None:
    paths = [make_config().data.sources[0].source, str(make_config().data.held_out.source)]
    forth, back = (
        take_fingerprints(make_config({"data.sources": [{"source": path} for path in order]}))
        for order in (paths, paths[::-1])
    )

    assert changed(forth, back) == {"data"}


def test_a_missing_data_file(make_config: MakeConfig, tmp_path: Path) -> None:
    path = str(tmp_path / "none.jsonl")

    with pytest.raises(DataError) as caught:
        take_fingerprints(make_config({"data.sources": [{"source": path}]}))

    assert str(caught.value) == f"data source {path}: no such file; {WHAT_TO_GIVE}"


@pytest.mark.parametrize("source", ["{}", "{}/*.jsonl"])
def test_any_file_of_a_folder_or_glob_is_part_of_the_data(
    source: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    config = make_config({"data.sources": [{"source": source.format(folder)}]})
    seen = set()
    for name, content in [("a.jsonl", "{}"), ("b.jsonl", "{}"), ("a.jsonl", "{} "), ("c.txt", "")]:
        (folder / name).write_text(content)
        seen.add(take_fingerprints(config).data)

    assert len(seen) == 3  # the text file is no data


def test_a_changed_remote_file_changes_the_data(make_config: MakeConfig) -> None:
    import fsspec

    config = make_config({"data.sources": [{"source": "memory://fingerprints/rows.jsonl"}]})
    memory = fsspec.filesystem("memory")
    memory.pipe("/fingerprints/rows.jsonl", b"{}")
    first, again = take_fingerprints(config), take_fingerprints(config)
    memory.pipe("/fingerprints/rows.jsonl", b"[]")

    assert first == again
    assert changed(first, take_fingerprints(config)) == {"data"}


def test_a_hub_data_set_out_of_reach_goes_by_its_revision(make_config: MakeConfig) -> None:
    def take(revision: str | None) -> Fingerprints:
        source = {"source": "nobody/nothing-here", "revision": revision}
        return take_fingerprints(make_config({"data.sources": [source]}))

    assert take(None) == take("main")
    assert changed(take("main"), take("v2")) == {"data"}


# --- the model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"],
)
def test_a_changed_model_file_changes_the_model_alone(
    name: str, model: Path, config: FinetuningConfig
) -> None:
    before = take_fingerprints(config)

    append(model / name, b"\n")

    assert changed(before, take_fingerprints(config)) == {"model"}


def test_one_changed_byte_of_the_weights_changes_the_model_alone(
    model: Path, config: FinetuningConfig
) -> None:
    before = take_fingerprints(config)
    path = model / "model.safetensors"
    weights = bytearray(path.read_bytes())

    weights[-1] ^= 1
    path.write_bytes(weights)

    assert changed(before, take_fingerprints(config)) == {"model"}


@pytest.mark.parametrize("name", ["tokenizer.model", "merges.txt", "modeling_own.py"])
def test_other_files_that_a_tokenizer_is_made_from_belong_to_the_model(
    name: str, model: Path, config: FinetuningConfig
) -> None:
    before = take_fingerprints(config)
    (model / name).write_text("1")
    added = take_fingerprints(config)

    (model / name).write_text("22")

    assert changed(before, added) == {"model"}
    assert changed(added, take_fingerprints(config)) == {"model"}


def test_a_model_that_is_only_moved_or_described_changes_nothing(
    model: Path, config: FinetuningConfig, make_config: MakeConfig, tmp_path: Path
) -> None:
    before = take_fingerprints(config)

    (model / "README.md").write_text("A model.")
    described = take_fingerprints(config)
    model.rename(tmp_path / "elsewhere")
    moved = take_fingerprints(make_config({"model.id": str(tmp_path / "elsewhere")}))

    assert before == described == moved


def test_a_changed_template_file_changes_the_model_alone(
    config: FinetuningConfig, make_config: MakeConfig, tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    chosen = make_config({"model.id": config.model.id, "model.chat_template": str(template)})
    before = take_fingerprints(chosen)

    template.write_text("{{ messages }}.")

    assert changed(before, take_fingerprints(chosen)) == {"model"}
    assert changed(take_fingerprints(config), before) == {"model"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "model.id: no folder {id}, and not a Hub id owner/name"),
        ("model", "model.id: {id} holds no .safetensors file; other weight formats are not read"),
    ],
)
def test_a_local_model_that_is_missing_or_incomplete(
    name: str, message: str, model: Path, make_config: MakeConfig
) -> None:
    (model / "model.safetensors").unlink()
    model_id = str(model.parent / name)

    with pytest.raises(ModelError) as caught:
        take_fingerprints(make_config({"model.id": model_id}))

    assert str(caught.value) == message.format(id=model_id)


def test_the_embedded_model_that_is_not_made_yet(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelError) as caught:
        take_fingerprints(make_config({"model.id": "models/SmolLM2-135M-Instruct"}))

    assert str(caught.value) == (
        "model.id: no folder models/SmolLM2-135M-Instruct; run `make model`"
    )


def test_a_template_that_is_not_there(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="'vicuna' is neither one of alpaca, chatml"):
        take_fingerprints(make_config({"model.chat_template": "vicuna"}))


def test_a_hub_model_out_of_reach_goes_by_its_name_and_template(make_config: MakeConfig) -> None:
    def take(**settings: Any) -> Fingerprints:
        overrides = {f"model.{key}": value for key, value in settings.items()}
        return take_fingerprints(make_config({"model.id": "nobody/nothing-here", **overrides}))

    assert take() == take()
    assert changed(take(), take(chat_template="alpaca")) == {"model"}


# --- the code ----------------------------------------------------------------------------------

TAKE = """
import json, sys
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.lineage.fingerprints import take_fingerprints
found = take_fingerprints(FinetuningConfig.model_validate_json(sys.argv[1]))
stack = [name for name in ("torch", "transformers", "unsloth") if name in sys.modules]
print(json.dumps([found.model_dump(), stack]))
"""


def take_in_process(folder: Path, config: FinetuningConfig) -> tuple[Fingerprints, list[str]]:
    """Take them in a new process, by the package that lies in ``folder``."""
    finished = subprocess.run(
        [sys.executable, "-c", TAKE, config.model_dump_json()],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    found, stack = json.loads(finished.stdout)
    return Fingerprints.model_validate(found), stack


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of this package to change."""
    return shutil.copytree(
        PACKAGE,
        tmp_path / "checkout" / PACKAGE.name,
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def test_another_process_and_another_checkout_take_the_same(
    config: FinetuningConfig, package: Path
) -> None:
    found, stack = take_in_process(package.parent, config)

    assert found == take_fingerprints(config)
    assert stack == []  # it costs no import of the training stack


@pytest.mark.parametrize(
    "name",
    [
        "configuration/train.py",
        "data/tokens/tokenization.py",
        "distributed/fsdp.py",
        "errors.py",
        "model/finetuning/load.py",
        "model/chat_templates/chatml.jinja",
        "planning/batch_plan.py",
        "training/run.py",
    ],
)
def test_changed_code_changes_the_code_alone(
    name: str, config: FinetuningConfig, package: Path
) -> None:
    append(package / name, b"\n")

    found, _ = take_in_process(package.parent, config)

    assert changed(take_fingerprints(config), found) == {"code"}


def test_what_computes_nothing_is_no_code(config: FinetuningConfig, package: Path) -> None:
    (package / "data" / "notes.md").write_text("Notes.")
    append(package / "reporting" / "__init__.py", b"\n")

    found, _ = take_in_process(package.parent, config)

    assert found == take_fingerprints(config)


def test_other_weights_to_start_from_change_the_start_alone(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    config = make_config({"train.start_from": str(adapter)})
    before = take_fingerprints(config)
    (adapter / "adapter_model.safetensors").write_bytes(b"two!")
    assert changed(before, take_fingerprints(config)) == {"start"}
