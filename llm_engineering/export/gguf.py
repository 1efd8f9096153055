"""GGUF, as llama.cpp and Ollama read it: the merged model through llama.cpp's own converter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from llm_engineering.errors import ExportError, SetupError

CONVERTER = Path(__file__).resolve().parents[2] / ".gguf-converter" / "convert_hf_to_gguf.py"
"""Put there by ``make gguf-converter`` (tools/get_gguf_converter.py)."""


def require_converter() -> None:
    """Check that the converter is there.

    Raises:
        SetupError: It is not.
    """
    if not CONVERTER.is_file():
        raise SetupError(
            "export.gguf: llama.cpp's converter is not here: run `make gguf-converter`"
        )


def write_gguf(merged: Path, path: Path, kind: str) -> None:
    """Convert a merged model.

    Args:
        merged: Its folder.
        path: The file to write.
        kind: "f16", "bf16" or "q8_0".

    Raises:
        ExportError: The converter refuses, for instance since it does not know the architecture.
        SetupError: It is not here.
    """
    require_converter()
    path.parent.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, str(CONVERTER), str(merged), "--outfile", str(path), "--outtype", kind],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not path.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"export.gguf: the converter ended with {done.returncode}: {last}")


def read_metadata(path: Path) -> tuple[str, list[int], list[str]]:
    """What a GGUF file says of its chat template, its end tokens, and its vocabulary by id."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields

    def value(name: str) -> Any:
        return fields[name].contents() if name in fields else None

    ends = [value(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return (
        str(value("tokenizer.chat_template") or ""),
        [int(token) for token in ends if token is not None],
        list(value("tokenizer.ggml.tokens") or []),
    )
