"""Tests of ``--serve``: which version, by what, what a dry run says, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.commands import serve
from llm_engineering.commands.trained_version import trained_version
from llm_engineering.configuration import to_yaml
from llm_engineering.errors import RegistryError, TalkError
from llm_engineering.serving.endpoint import Endpoint, listen

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config_path(make_run: Any, make_config: Any, tmp_path: Path) -> Path:
    """The configuration of a finished run."""
    make_run()
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(make_config()))
    return path


def test_a_dry_run_says_engine_line_and_what_is_missing(
    config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.run(str(tmp_path / "outputs/one"), "127.0.0.1", 8000, config_path, [], dry_run=True)

    said = capsys.readouterr().out
    assert "adapter of one" in said
    assert "transformers serve (vLLM: missing vllm" in said
    assert "base + adapter, not merged" in said
    assert "missing        nothing" in said
    assert "vllm serve" in said
    assert "--enable-lora" in said
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in said


def test_production_is_found_in_outputs_or_taken_out_of_the_store(
    make_run: Any,
    make_config: Any,
    add_version: Any,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llm_engineering.registry import version_files
    from llm_engineering.registry.stages import promote_by_hand

    config = make_config({"registry.model": model})
    folder = make_run("first")
    with pytest.raises(RegistryError, match="no production version; --promote VERSION makes one"):
        next(iter_of(trained_version("", config)))
    promote_by_hand(model, add_version("first"))

    with trained_version("production", config) as found:
        assert found.run.folder == folder / "adapter"
        assert found.model == model
        assert f"first, version 1 of {model}, production" in found.text

    kept = folder.rename(folder.with_name("kept"))
    monkeypatch.setattr(version_files, "write_version", lambda _, to: shutil.copytree(kept, to))
    with trained_version("1", config) as found:
        taken = found.run.folder
        assert taken.is_dir()
        assert kept not in taken.parents
    assert not taken.exists()  # nothing stays


def iter_of(context: Any) -> Any:
    with context as found:
        yield found


def test_an_engine_that_fails_is_told(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_engineering.serving import vllm_command

    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(vllm_command, "is_installed", lambda: True)
    monkeypatch.setattr(serve, "_has_gpu", lambda: True)
    monkeypatch.setattr(vllm_command, "command", lambda *_: (failing, []))
    with pytest.raises(TalkError, match="vLLM ended with 3"):
        serve.run("one", "127.0.0.1", 8000, config_path, [])
    with pytest.raises(TalkError, match="--port 0: vLLM takes no free port"):
        serve.run("one", "127.0.0.1", 0, config_path, [])


def test_a_port_in_use_is_told_before_the_model_is_loaded(config_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(TalkError, match="cannot listen there"):
        serve.run("one", "127.0.0.1", taken.getsockname()[1], config_path, [])


def test_an_address_of_version_6_is_written_in_brackets() -> None:
    assert Endpoint("::1", 8000, "m").url == "http://[::1]:8000/v1"
    assert not Endpoint("0.0.0.0", 8000, "m").is_local


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(config_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/run.py"), "--config", str(config_path)]
    command += ["--serve", str(tmp_path / "outputs/one"), "--port", "0"]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert server.stdout is not None
        said = [next(server.stdout) for _ in range(4)]
        url = said[0].split()[-1]
        curl = said[2].partition("curl ")[2]
        asked = urllib.request.Request(
            f"{url}/chat/completions",
            data=curl[curl.index("{") : curl.rindex("}") + 1].encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=120) as answered:
            given = json.load(answered)
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)

    assert given["choices"][0]["message"]["content"]
    assert "serving" in said[0]
    assert "Ctrl-C ends it" in said[3]
    assert server.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "interrupted"
