"""``--init``: a commented starting configuration, from a look at the data."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from llm_engineering.commands.look_at_data import CHARACTERS_A_TOKEN, Look, look_at
from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import load_config
from llm_engineering.errors import ConfigError

EMBEDDED = "models/SmolLM2-135M-Instruct"
_SCHEMA = Path(__file__).resolve().parents[2] / "configs" / "schema.json"
_LENGTHS = tuple(2**power for power in range(8, 18))
_HELD_OUT_ROWS = 1000
"""Held out of much data: a paired bootstrap tells a difference of one per cent by them."""
_LEARNS = {
    "sft": "the answers",
    "dpo": "which of two answers is better",
    "kto": "whether an answer is good",
}


def run(path: Path, source: str, model: str | None) -> None:
    """Write a configuration that fine-tunes a model on a source.

    Args:
        path: The file; it must not be there.
        source: As ``data.sources[].source``.
        model: As ``model.id``; None: the embedded model.

    Raises:
        ConfigError: The file is there, or cannot be written.
        DataError: The source cannot be read, or no row of it can be learned from.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"--init {path}: is there already; name another file, or remove it")
    if not path.parent.is_dir():
        raise ConfigError(f"--init {path}: there is no folder {path.parent}; make it first")
    set_up_terminal()
    model = model or EMBEDDED
    look = look_at(source, model)
    text = configuration(path, source, model, look)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_text(text, encoding="utf-8")
        load_config(draft)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"--init {path}: cannot be written ({error.strerror})") from None
    print(f"{source}: {_seen(look)}")
    for reason in look.bad_rows[:5]:
        print(f"  cannot be learned from: {reason}")
    print(f"\nwritten        {path}")
    print(f"look           tools/run.py --inspect-data --config {path}")
    print(f"plan           tools/run.py --finetune --config {path} --dry-run")
    print(f"fine-tune      tools/run.py --finetune --config {path}")


def configuration(path: Path, source: str, model: str, look: Look) -> str:
    """The text of the file.

    Args:
        path: Where it will be.
        source: As ``data.sources[].source``.
        model: As ``model.id``.
        look: What was seen of the source.
    """
    length, why = _max_seq_length(look)
    share = _held_out(look.rows)
    schema = os.path.relpath(_SCHEMA, path.parent.resolve())
    lines = [
        f"# yaml-language-server: $schema={schema}",
        f"# {_one_line(model)} learns {_LEARNS[look.objective]} of {_one_line(source)}.",
        f"# Seen there: {_one_line(_seen(look))}.",
        "#",
        f"#   poetry run python tools/run.py --finetune --config {path}",
        "#",
        "# Every key: docs/reference/configuration.md, or tools/run.py --explain KEY.",
        "",
        "model:",
        f"  id: {_quoted(model)}",
        f"  max_seq_length: {length}  # tokens; {why}",
        "  # quantisation: nf4  # QLoRA: half a byte a parameter; needs an NVIDIA GPU",
        "",
        "lora:",
        "  r: 32  # rank: more learns more, and takes more memory",
        "  lora_alpha: 32",
        "",
        "data:",
        "  sources:",
        f"    - source: {_quoted(source)}",
        *_columns(look),
        "  held_out:",
        f"    fraction: {share:g}  # some {round(share * look.rows):,} of {look.rows:,} rows, never trained: "
        "they judge the result",
        *_bad_rows(look),
        "",
        "train:",
        *_objective(look),
        "  epochs: 3  # passes over the data",
        "  effective_batch: 16  # rows in an optimizer step",
        "  # packing: true  # several rows in one of max_seq_length: faster for short rows, on a GPU"
        if look.objective == "sft"
        else "  # beta: 0.1  # how closely it holds to the base model",
        "",
        "evaluate:",
        "  samples: 4  # held-out prompts that the report answers before and after",
        f"  max_new_tokens: {min(128, length // 2)}  # of each answer",
        "",
        "# export:",
        "#   merged_16bit: true  # one model in place of base model and adapter",
    ]
    return "\n".join(lines) + "\n"


def _seen(look: Look) -> str:
    what = {"dpo": "of pairs of answers", "kto": "of judged answers"}.get(
        look.objective, f"of the form {look.form}"
    )
    about = "about " if look.why_estimated else ""
    rows = "1 row" if look.rows == 1 else f"{look.rows:,} rows"
    parts = [f"{rows} {what}", f"the longest has {about}{look.longest:,} tokens"]
    if look.columns:
        parts.append(", ".join(f"{theirs} is the {ours}" for ours, theirs in look.columns.items()))
    if look.bad_rows:
        parts.append(f"{len(look.bad_rows):,} more cannot be learned from")
    unread = [f"{name} ({rows:,})" for name, rows in sorted(look.unread.items())]
    return "; ".join(parts + ([f"not read: {', '.join(unread)}"] if unread else []))


def _max_seq_length(look: Look) -> tuple[int, str]:
    """The least power of two that holds every row, if the model has so many positions; and why."""
    wanted = next((length for length in _LENGTHS if length >= look.longest), _LENGTHS[-1])
    if look.positions is not None and look.positions <= wanted:
        if look.cut:
            return look.positions, (
                f"all that the model was made for: {look.cut:,} rows are longer, and are cut"
            )
        return look.positions, "all that the model was made for, and every row fits"
    if look.why_estimated:
        return wanted, (
            f"by {CHARACTERS_A_TOKEN} characters a token, since the model's tokenizer is not here: "
            "--inspect-data counts"
        )
    return wanted, f"the longest row has {look.longest:,}; what is longer is cut at the end"


def _held_out(rows: int) -> float:
    """A tenth; a fifth of few rows, for some must judge; of many no more than are needed."""
    if rows < 200:
        return 0.2
    return 0.1 if rows <= 10 * _HELD_OUT_ROWS else float(f"{_HELD_OUT_ROWS / rows:.1g}")


def _columns(look: Look) -> list[str]:
    if not look.columns:
        return []
    pairs = ", ".join(f"{ours}: {_quoted(theirs)}" for ours, theirs in look.columns.items())
    return [f"      columns: {{{pairs}}}  # the rows' own names of a form's columns"]


def _bad_rows(look: Look) -> list[str]:
    if not look.bad_rows:
        return []
    rows = "1 row" if len(look.bad_rows) == 1 else f"{len(look.bad_rows):,} rows"
    return [
        f"  # {rows} cannot be learned from, the first: {_one_line(look.bad_rows[0])}",
        "  on_bad_rows: error  # mend them; or skip: train without them, counted in the report",
    ]


def _objective(look: Look) -> list[str]:
    if look.objective == "sft":
        return ["  learning_rate: auto  # by the model's width and family; --dry-run says which"]
    rate = {"dpo": "2e-6", "kto": "5e-6"}[look.objective]
    return [
        f"  objective: {look.objective}  # learns {_LEARNS[look.objective]}",
        f"  learning_rate: {rate}  # the objective's own default",
    ]


def _quoted(text: str) -> str:
    """Text as YAML; plain where that is what it reads back as."""
    import yaml

    try:
        plain = yaml.safe_load(f"- {text}") == [text] and not set(text) & set("{}[],#&*!|>'\"%@`")
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Text that stays in its comment."""
    return " ".join(text.split())[:300]
