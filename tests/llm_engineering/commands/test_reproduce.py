"""Tests of ``--reproduce``: the same bits again, and what is refused before anything is trained."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.commands import reproduce
from llm_engineering.commands.reproduce import compare, read_manifest, require_same_inputs
from llm_engineering.configuration import to_yaml
from llm_engineering.data.prepare import prepare_data
from llm_engineering.errors import DataError, ReproductionError
from llm_engineering.model.base_model import file_digest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run.py"), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def write_manifest(make_config: Any, a_manifest: Any, tmp_path: Path) -> Callable[..., Path]:
    """Write the manifest of a run of the tiny model that was never made."""
    config = make_config({"run.name": "one", "export.hub_repo": "acme/one"})

    def write(**changes: Any) -> Path:
        manifest = a_manifest(config)
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(manifest.model_dump(mode="json") | changes))
        return path

    return write


def test_the_same_configuration_without_its_consequences(write_manifest: Any) -> None:
    manifest, config = read_manifest(write_manifest(base_model_revision="0123abc"))

    assert manifest.run == "one"
    assert config.run.name is None  # the old name is taken
    assert config.model.revision == "0123abc"  # not the branch, which may have moved
    assert not config.registry.promote
    assert config.export.hub_repo is None
    assert config.train.max_steps == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"config": {"run": {}, "registry": {}, "model": {}, "colour": 1}}, "colour: Extra inputs"),
        ({"config": {}}, "KeyError('run')"),
        ({"seed": "many"}, "seed: Input should be a valid integer"),
    ],
)
def test_what_is_no_manifest_of_this_version(
    change: dict[str, Any], says: str, write_manifest: Any
) -> None:
    with pytest.raises(ReproductionError) as caught:
        read_manifest(write_manifest(**change))
    assert "is no manifest of this version of the project" in str(caught.value)
    assert says in str(caught.value)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ReproductionError, match="No such file"):
        read_manifest(tmp_path / "none.json")


def test_other_weights_are_refused_with_both_digests(write_manifest: Any) -> None:
    manifest, config = read_manifest(
        write_manifest(base_model_digests={"model.safetensors": "f" * 64})
    )

    with pytest.raises(ReproductionError) as caught:
        require_same_inputs(manifest, config)

    seen = file_digest(Path(config.model.id) / "model.safetensors")
    assert f"model.safetensors of {config.model.id} has SHA-256 {seen}, the run had ffff" in str(
        caught.value
    )


def test_other_data_and_missing_data_are_refused(write_manifest: Any) -> None:
    manifest, config = read_manifest(write_manifest())
    with pytest.raises(
        ReproductionError, match=r"the prepared data has SHA-256 \w{64}, the run had 0"
    ):
        require_same_inputs(manifest, config)

    Path(config.data.sources[0].source).unlink()
    with pytest.raises(DataError, match="no such file"):
        require_same_inputs(manifest, config)


def test_what_differs_is_told_and_times_are_not_compared(write_manifest: Any) -> None:
    then, _ = read_manifest(write_manifest())
    packages = {"torch": "2.14.0", "peft": "0.21.2"}
    now = then.model_copy(update={"packages": packages, "data_seed": 3})
    figures = {"held_out_loss_after": 2.5, "train_seconds": 9.0, "peak_memory_bytes": 1}

    compared = {one.name: one for one in compare(then, now, figures, {"held_out_loss_after": 2.6})}

    different = {name for name, one in compared.items() if not one.same}
    assert different == {"torch", "held_out_loss_after", "data seed"}
    assert (compared["torch"].then, compared["torch"].now) == ("2.13.0", "2.14.0")
    assert {"adapter", "data", "model.safetensors", "git commit", "hardware"} <= compared.keys()


@pytest.mark.long
def test_the_real_command_trains_the_same_bits_again(make_config: Any, tmp_path: Path) -> None:
    config = make_config({"evaluate.samples": 0, "train.max_steps": 3})
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    first = command("--finetune", "--config", tmp_path / "config.yaml")
    assert first.returncode == 0, first.stderr[-3000:]
    outputs = Path(config.run.output_dir)
    original = (outputs / "latest").resolve()

    again = command("--reproduce", original / "manifest.json")

    assert again.returncode == 0, again.stderr[-3000:]
    assert f"bit-identical to {original.name}" in again.stdout
    assert "adapter" in again.stdout
    assert (outputs / "latest").resolve() != original
    digests = [file_digest(p) for p in outputs.glob("*-*/adapter/adapter_model.safetensors")]
    assert len(digests) == 2
    assert len(set(digests)) == 1


def test_other_bits_are_an_error_that_says_what_else_differs(
    write_manifest: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_manifest()

    def train_otherwise(config_path: Path, overrides: Any, *, use_cache: bool, name: str) -> None:
        assert not use_cache
        then, config = read_manifest(path)
        folder = Path(config.run.output_dir) / name
        folder.mkdir(parents=True)
        now = then.model_copy(update={"adapter_digest": "b" * 64, "hardware": "Another CPU"})
        (folder / "manifest.json").write_text(now.model_dump_json())

    monkeypatch.setattr("llm_engineering.commands.finetune.run", train_otherwise)
    monkeypatch.setattr(reproduce, "require_same_inputs", lambda *_: None)

    with pytest.raises(ReproductionError) as caught:
        reproduce.run(path)

    assert caught.value.exit_code == 14
    assert "the adapter is not that of one, to the bit; different too: hardware" in str(
        caught.value
    )
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "hardware" in line)
    assert line.split("  ")[-1].strip() == "different"
    assert "A CPU" in line
    assert "Another CPU" in line


def test_a_printed_date_is_that_of_the_run(
    make_config: Any, write_manifest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run could not be told to be the same a day later."""
    template = tmp_path / "dated.jinja"
    template.write_text(
        "{{ strftime_now('%Y-%m-%d') }}\n"
        "{% for m in messages %}{{ m.role }}:\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )
    config = make_config({"model.chat_template": str(template)})
    day(monkeypatch, 1)
    summary = prepare_data(config.data, config.model, folder=tmp_path / "data").summary
    changes = {"config": config.model_dump(mode="json"), "data_digest": summary.digest}
    inputs = summary.template_inputs.model_dump(mode="json")
    assert inputs["date"] == "2026-01-01"
    day(monkeypatch, 2)

    require_same_inputs(*read_manifest(write_manifest(**changes, template_inputs=inputs)))

    with pytest.raises(ReproductionError, match="the prepared data has SHA-256"):
        require_same_inputs(*read_manifest(write_manifest(**changes)))


def day(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let today be that day of January 2026."""

    class Date(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return datetime.date(2026, 1, number)

    monkeypatch.setattr("llm_engineering.model.chat_template.datetime.date", Date)
