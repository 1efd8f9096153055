"""docs/models.md, the support matrix: a row a family, made of what its tiny model lived through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from families.lifecycle import Lived
from families.shapes import FAMILIES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
_BEGIN, _END = "<!-- families: begin -->\n", "<!-- families: end -->\n"
_HEAD = (
    "| family | adapters (`lora.target_modules: auto`) | packed rows | 4 bit | merged, proven | GGUF "
    "| weights shared by GPUs |\n|---|---|---|---|---|---|---|\n"
)


def row(name: str, lived: Lived, model: Any, names: list[str]) -> str:
    """A family's line of the table.

    Args:
        name: Of the family.
        lived: What came of it.
        model: On the meta device.
        names: Of the tensors in its files.
    """
    from llm_engineering.errors import ExportError
    from llm_engineering.model.finetuning.packing import carrying_layer
    from llm_engineering.model.finetuning.preflight import require_gguf
    from llm_engineering.model.finetuning.targets import choose_targets

    targets = lived.lora.targets
    adapters = [f"`{one}`" for one in (*targets.modules, *targets.parameters)]
    if targets.left_out:
        adapters.append(f"not {', '.join(f'`{one}`' for one in targets.left_out)}")
    in_4_bit = choose_targets(model, lived.lora.settings, quantised=True)
    lost = [one for one in in_4_bit.left_out if one not in targets.left_out]
    quantised = "experts too" if targets.experts else "yes"
    if lost:
        quantised += f"; no adapter on {', '.join(f'`{one}`' for one in lost)}"
    try:
        require_gguf(model, names, targets)
        gguf = "yes"
    except ExportError:
        gguf = "refused"
    proven = {proof.export for proof in lived.proofs if proof.passed}
    cells = [
        FAMILIES[name].title,
        ", ".join(adapters),
        "yes" if carrying_layer(model) is None else "refused",
        quantised,
        "yes" if proven == {"adapter", "merged_16bit"} else "no",
        gguf,
        "refused" if targets.parameters else "yes",
    ]
    return "| " + " | ".join(cells) + " |"


def written_rows() -> list[str]:
    """The rows that the document has."""
    table = DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]
    return table.removeprefix(_HEAD).splitlines()


def write_row(name: str, line: str) -> None:
    """Put a family's line into the document, in the families' order."""
    text = DOCUMENT.read_text(encoding="utf-8")
    titles = [family.title for family in FAMILIES.values()]
    known = {re.split(r" \| ", one)[0].removeprefix("| "): one for one in written_rows()}
    known[FAMILIES[name].title] = line
    lines = [known[title] for title in titles if title in known]
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    table = _HEAD + "".join(f"{one}\n" for one in lines)
    DOCUMENT.write_text(before + _BEGIN + table + _END + after, encoding="utf-8")
