"""GGUF, as llama.cpp and Ollama read it: the merged model through llama.cpp's own converter and quantiser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from llm_engineering.configuration.export import quantised_by_hand
from llm_engineering.errors import ExportError, SetupError

CONVERTER = Path(__file__).resolve().parents[2] / ".gguf-converter" / "convert_hf_to_gguf.py"
"""Put there by ``make gguf-converter`` (tools/get_gguf_converter.py)."""

K_QUANTS = {"q4_k_m": 15, "q5_k_m": 17}
"""Types that the quantiser makes of the converter's bf16, with llama.h's numbers (``llama_ftype``)."""

_PROGRAM = Path(__file__).with_name("gguf_quantiser.py")


def quantiser() -> Path:
    """Folder of the quantiser's libraries, beside the converter (tools/get_gguf_quantiser.py)."""
    return CONVERTER.parent / "quantiser"


def require_converter(kind: str) -> None:
    """Check that the converter is there and, for a k-quant, the quantiser.

    Args:
        kind: ``export.gguf``.

    Raises:
        SetupError: One is not.
    """
    if not CONVERTER.is_file():
        raise SetupError(
            "export.gguf: llama.cpp's converter is not here: run `make gguf-converter`"
        )
    if kind in K_QUANTS and not quantiser().is_dir():
        raise SetupError(
            f"export.gguf: {kind} needs llama.cpp's quantiser, which is not here: run `make "
            f"gguf-quantiser`; or {quantised_by_hand(kind)}"
        )


def write_gguf(merged: Path, path: Path, kind: str) -> None:
    """Convert a merged model.

    Args:
        merged: Its folder.
        path: The file to write.
        kind: "f16", "bf16", "q8_0", or one of ``K_QUANTS``, for which the converter's bf16 is written
            beside it and removed again.

    Raises:
        ExportError: The converter refuses, for instance since it does not know the architecture.
        SetupError: It is not here.
    """
    require_converter(kind)
    path.parent.mkdir(parents=True)
    if kind not in K_QUANTS:
        _convert(merged, path, kind)
        return
    whole = path.with_suffix(".bf16.part")
    try:
        _convert(merged, whole, "bf16")
        _run("the quantiser ended with", path, _PROGRAM, quantiser(), whole, path, K_QUANTS[kind])
    finally:
        whole.unlink(missing_ok=True)


def gguf_type(path: str | Path) -> str:
    """The type that a GGUF's name ends with."""
    return Path(path).stem.rpartition("-")[2]


def _convert(merged: Path, path: Path, kind: str) -> None:
    command = (CONVERTER, merged, "--outfile", path, "--outtype", kind)
    _run("the converter ended with", path, *command)


def _run(failed: str, made: Path, *command: object) -> None:
    """Run a Python program that makes a file."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not made.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"export.gguf: {failed} {done.returncode}: {last}")


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
