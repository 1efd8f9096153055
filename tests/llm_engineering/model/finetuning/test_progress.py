"""What training says of itself, where there is a terminal and where there is none."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = """
import logging, sys
from llm_engineering.model.finetuning.progress import ProgressDisplay
from llm_engineering.model.finetuning.record import TrainingPoint, TrainingRecord

terminal = logging.StreamHandler(sys.stderr)
handlers = [terminal, logging.FileHandler(sys.argv[1])]
logging.basicConfig(level="INFO", format="%(message)s", handlers=handlers)
display = ProgressDisplay()
display.start(2)
display.announce("evaluating 12 held-out rows")
point = TrainingPoint(step=2, loss=1.5, learning_rate=1.0, grad_norm=1.0, tokens_per_second=90.0)
display.advance(2)
display.show(TrainingRecord(points=[point], steps=2))
logging.getLogger("other").info("a line of another part")
display.stop()
"""
LINES = [
    "evaluating 12 held-out rows",
    "step 2 of 2 · loss 1.500 · 90 tokens/s",
    "a line of another part",
]


def test_a_log_gets_the_lines_and_a_terminal_the_bar(tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    subprocess.run(command, cwd=ROOT, env=environment, stderr=inner, check=True)
    os.close(inner)
    shown = os.read(outer, 100_000).decode()
    assert "2/2" in shown
    assert "loss 1.500 · 90 tokens/s" in shown
    assert "step 2 of 2" not in shown
    assert "a line of another part" in shown
    assert (tmp_path / "log").read_text().splitlines() == LINES


def test_without_a_terminal_the_lines_are_all(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log")]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr.splitlines() == LINES
    assert (tmp_path / "log").read_text().splitlines() == LINES
