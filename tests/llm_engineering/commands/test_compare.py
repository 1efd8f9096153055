"""``--compare``: which runs it takes, what its page says, and what it says where things are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.commands import compare
from llm_engineering.configuration import to_yaml
from llm_engineering.errors import ConfigError, RegistryError, TalkError


@pytest.fixture
def write_run(make_config: Any, tmp_path: Path) -> Any:
    """Write a run's folder; gives its name."""
    output = Path(make_config().run.output_dir)

    def write(name: str, loss: float, **changes: Any) -> str:
        config = make_config(changes)
        folder = output / name
        folder.mkdir(parents=True)
        manifest = {
            "run": name, "created": "2026-11-30T10:00:00+00:00", "hardware": "a <b> CPU",
            "config": config.model_dump(mode="json"), "data_digest": "d", "packages": {},
            "base_model_digests": {}, "chat_template_digest": "t",
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "metrics.json").write_text(json.dumps({"held_out_loss_after": loss}))
        return name

    return write


@pytest.fixture
def config_path(make_config: Any, tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(to_yaml(make_config()), encoding="utf-8")
    return path


def test_runs_whose_artifacts_are_gone_are_compared_by_what_is_left(
    write_run: Any, config_path: Path, make_config: Any, monkeypatch: Any, capsys: Any
) -> None:
    def gone(manifest: Any) -> Any:
        raise RegistryError("the store was emptied")

    monkeypatch.setattr(compare, "_stored", gone)
    names = [write_run("one", 2.0), write_run("two", 1.5, **{"lora.r": 4})]

    compare.run(names, config_path, [])

    said = capsys.readouterr().out
    page = Path(said.rpartition("page  ")[2].strip())
    assert page == Path(make_config().run.output_dir) / "compared" / "one--two.html"
    html = page.read_text(encoding="utf-8")
    assert "two: its curve and answers are not shown: the store was emptied" in html
    assert "lora.r" in html
    assert "lora.lora_dropout" not in html
    assert '<td class="num">2.00</td><td class="num best">1.50</td>' in html
    assert "a &lt;b&gt; CPU" in html


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], ConfigError, "0 runs given; give from two to 6"),
        (["one"] * 7, ConfigError, "7 runs given"),
        (["one", "one"], ConfigError, "one is given twice"),
        (["one", "nowhere"], TalkError, "nowhere: neither a folder nor a run"),
        (["one", "torn"], ConfigError, "torn has no readable manifest.json"),
    ],
)
def test_what_cannot_be_compared_is_said(
    write_run: Any,
    config_path: Path,
    make_config: Any,
    names: list[str],
    error: type[Exception],
    message: str,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(compare, "_stored", lambda manifest: (None, None))
    write_run("one", 2.0)
    (Path(make_config().run.output_dir) / "torn").mkdir()
    with pytest.raises(error, match=message):
        compare.run(names, config_path, [])


def test_a_run_of_another_version_of_the_project_is_told() -> None:
    with pytest.raises(RegistryError, match="another version of this project"):
        compare._stored({"config": {"nothing": "known"}, "run": "one"})
