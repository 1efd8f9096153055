"""Names of runs, and an output folder that is there whole or not at all."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ConfigError
from llm_engineering.outputs import keep_unproven, new_output, remove_work, run_name, work_folder

NOW = datetime(2026, 11, 24, 21, 9, 5)


def make_config(
    output_dir: Path, *, name: str | None = None, model: str = "m", source: str = "rows.jsonl"
) -> FinetuningConfig:
    values: dict[str, Any] = {
        "run": {"name": name, "output_dir": str(output_dir)},
        "model": {"id": model},
        "data": {"sources": [{"source": source}], "held_out": {"fraction": 0.1}},
    }
    return FinetuningConfig.model_validate(values)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "source", "expected"),
    [
        (
            "models/SmolLM2-135M-Instruct",
            "data/stdlib_qa/train.jsonl",
            "SmolLM2-135M-Instruct-stdlib_qa-20261124-210905",
        ),
        ("meta-llama/Llama-3.1-8B", "mlabonne/llmtwin", "Llama-3.1-8B-llmtwin-20261124-210905"),
        ("models/tiny/", "answers.csv", "tiny-answers-20261124-210905"),
        ("tiny", "sets/qa/data.parquet", "tiny-qa-20261124-210905"),
        ("tiny", "train.jsonl", "tiny-train-20261124-210905"),
        ("my model", "q & a.jsonl", "my-model-q---a-20261124-210905"),
    ],
)
def test_a_run_is_named_after_its_model_its_data_and_the_time(
    model: str, source: str, expected: str, tmp_path: Path
) -> None:
    assert run_name(make_config(tmp_path, model=model, source=source), NOW) == expected


def test_a_configured_name_is_used_as_it_is(tmp_path: Path) -> None:
    assert run_name(make_config(tmp_path, name="first.try_2"), NOW) == "first.try_2"


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    with new_output(tmp_path, "first"):
        pass

    with pytest.raises(ConfigError) as caught:
        run_name(make_config(tmp_path, name="first"), NOW)

    assert str(caught.value) == (
        f"run.name: first is taken in {tmp_path}/; choose another (a resumed run takes a new name "
        "too), or leave it out"
    )


def test_the_name_of_an_interrupted_run_is_taken(tmp_path: Path) -> None:
    """Its checkpoints stay apart from those of any other training."""
    (work_folder(tmp_path) / "killed" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"run\.name: killed is taken"):
        run_name(make_config(tmp_path, name="killed"), NOW)


def test_the_name_of_an_unproven_run_is_taken(tmp_path: Path) -> None:
    for expected in ("bad-unproven", "bad-unproven-2"):
        part = work_folder(tmp_path) / "bad" / "output"
        (part / "adapter").mkdir(parents=True)
        assert keep_unproven(part, tmp_path, "bad") == tmp_path / expected
        assert (tmp_path / expected / "adapter").is_dir()
    with pytest.raises(ConfigError, match=r"run\.name: bad is taken"):
        run_name(make_config(tmp_path, name="bad"), NOW)


def test_latest_is_always_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="latest is taken"):
        run_name(make_config(tmp_path, name="latest"), NOW)


def test_a_run_that_did_not_finish_leaves_its_name_free(tmp_path: Path) -> None:
    fail(tmp_path, "first")

    assert run_name(make_config(tmp_path, name="first"), NOW) == "first"


# --- the folder --------------------------------------------------------------------------------


class Interruption(Exception):
    """What stops a run on its way."""


def write(output_dir: Path, name: str, text: str) -> None:
    with new_output(output_dir, name) as folder:
        (folder / "metrics.json").write_text(text)


def fail(output_dir: Path, name: str) -> None:
    def write_half() -> None:
        with new_output(output_dir, name) as folder:
            (folder / "metrics.json").write_text("half")
            raise Interruption

    with pytest.raises(Interruption):
        write_half()


def visible(output_dir: Path) -> list[str]:
    return sorted(path.name for path in output_dir.iterdir() if path.name != ".work")


def test_a_finished_run_is_the_latest(tmp_path: Path) -> None:
    write(tmp_path / "outputs", "first", "whole")

    assert visible(tmp_path / "outputs") == ["first", "latest"]
    assert (tmp_path / "outputs" / "first" / "metrics.json").read_text() == "whole"
    assert (tmp_path / "outputs" / "latest").readlink() == Path("first")
    assert (tmp_path / "outputs" / "latest" / "metrics.json").read_text() == "whole"


def test_the_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with new_output(tmp_path, "first") as folder:
        (folder / "metrics.json").write_text("whole")
        assert visible(tmp_path) == []
        assert folder.is_relative_to(work_folder(tmp_path))

    assert visible(tmp_path) == ["first", "latest"]


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    fail(tmp_path, "first")

    assert visible(tmp_path) == []


def test_an_interrupted_run_leaves_the_latest_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, "first", "whole")

    fail(tmp_path, "second")

    assert visible(tmp_path) == ["first", "latest"]
    assert (tmp_path / "latest" / "metrics.json").read_text() == "whole"


def test_the_next_run_becomes_the_latest(tmp_path: Path) -> None:
    write(tmp_path, "first", "1")

    write(tmp_path, "second", "2")

    assert visible(tmp_path) == ["first", "latest", "second"]
    assert (tmp_path / "latest").readlink() == Path("second")
    assert (tmp_path / "first" / "metrics.json").read_text() == "1"


def test_a_second_try_starts_from_an_empty_folder(tmp_path: Path) -> None:
    fail(tmp_path, "first")

    with new_output(tmp_path, "first") as folder:
        assert list(folder.iterdir()) == []

    assert list((tmp_path / "first").iterdir()) == []


def test_the_outputs_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "outputs", "first", "whole")

    (tmp_path / "outputs").rename(tmp_path / "elsewhere")

    assert (tmp_path / "elsewhere" / "latest" / "metrics.json").read_text() == "whole"


def test_work_is_removed_by_name(tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        (work_folder(tmp_path) / name / "checkpoints").mkdir(parents=True)

    remove_work(tmp_path, "first", "unknown", "third")

    assert [path.name for path in work_folder(tmp_path).iterdir()] == ["second"]
