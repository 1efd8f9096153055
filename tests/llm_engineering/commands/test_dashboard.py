"""The dashboard as a user meets it: the commands as they are typed, and a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration import to_yaml
from llm_engineering.configuration.finetuning import FinetuningConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = shutil.which("chromium")
STEPS = (
    *("prepare_data", "load_model", "inject_lora", "train"),
    *("evaluate", "save_model", "promote"),
)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., str]:
    """Run tools/run.py with a ZenML of this test's own, and give what it prints."""
    environment = {
        **os.environ,
        "ZENML_CONFIG_PATH": str(tmp_path / "zenml"),
        "OMP_NUM_THREADS": "1",
        "DISPLAY": "",
        "WAYLAND_DISPLAY": "",
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "run.py"), *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@contextmanager
def open_page(link: str) -> Iterator[Any]:
    """The page behind a link, in Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(15_000)
        page.goto(link)
        yield page
        browser.close()


def open_node(page: Any, name: str, tab: str) -> None:
    """Click a step or an artifact of the graph, and a tab of what opens."""
    page.locator(".react-flow__node").get_by_text(name, exact=True).first.click()
    page.get_by_role("dialog").get_by_role("tab", name=tab).click()


def shown_metadata(page: Any, step: str) -> str:
    """Titles, names and values on the step's Metadata tab, all unfolded, each on a line."""
    open_node(page, step, "Metadata")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Copy").first.wait_for()
    folded = dialog.get_by_role("button", expanded=False)
    while folded.count():
        folded.first.click()
    text = dialog.inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    return re.sub(r"\s*\n\s*", "\n", f"{text}\n")


def shown_preview(page: Any, artifact: str) -> str:
    """The text of an artifact's HTML page, behind the dashboard's own button."""
    open_node(page, artifact, "Visualization")
    page.get_by_role("button", name="Load Preview").click()
    body = page.get_by_role("dialog").frame_locator("iframe").locator("main")
    body.wait_for()
    text = " ".join(body.inner_text().split())
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    return text


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_run_from_before_the_server_is_all_there(
    make_config: Callable[..., FinetuningConfig], tmp_path: Path, command: Callable[..., str]
) -> None:
    config = make_config()
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    command("--finetune", "--config", str(tmp_path / "config.yaml"))
    folder = (Path(config.run.output_dir) / "latest").resolve()
    metrics = json.loads((folder / "metrics.json").read_text())
    try:
        printed = command("--dashboard")
        link = re.search(r"http://127\.0\.0\.1:(\d+)/\S*/runs/\S+", printed)
        assert link, printed
        with open_page(link.group()) as page:
            page.locator(".react-flow__node").first.wait_for()
            assert page.url.startswith(link.group()), "the first-open survey came instead"
            assert page.get_by_text(folder.name).first.is_visible()
            nodes = page.locator(".react-flow__node").all_inner_texts()
            assert set(STEPS) <= {text.split()[0] for text in nodes}

            trained = shown_metadata(page, "train")
            assert "training\n" in trained
            assert f"train_steps\n{metrics['train_steps']}\n" in trained
            assert f"peak_memory\n{metrics['peak_memory_bytes']}\n" in trained
            evaluated = shown_metadata(page, "evaluate")
            assert "held-out rows\n" in evaluated
            for figure in ("held_out_loss_before", "held_out_loss_after"):
                assert f"{figure}\n{metrics[figure]:.5g}\n" in evaluated  # rounded
            injected = shown_metadata(page, "inject_lora")
            assert f"trainable_parameters\n{metrics['trainable_parameters']}\n" in injected

            report = shown_preview(page, "report")
            assert folder.name in report
            assert f"On {len(config_rows(config))} held-out rows" in report
            data = shown_preview(page, "dataset")
            assert config.data.sources[0].source in data
            assert "Underlined text is trained" in data
    finally:
        stopped = command("--dashboard", "--stop")
    assert "stopped ZenML's local server" in stopped
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", int(link.group(1)))) != 0
    assert folder.name in command("--models")  # ZenML works again, on the same store


def config_rows(config: FinetuningConfig) -> list[str]:
    """The held-out rows of a configuration."""
    assert config.data.held_out.source
    return Path(config.data.held_out.source).read_text().splitlines()
