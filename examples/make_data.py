"""The rows of the examples: a catalogue, devices, replies and places that exist nowhere else.

python examples/make_data.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_ROWS = 160

_PARTS = ("chain", "saddle", "pedal", "rim", "fork", "brake lever", "hub", "bell", "rack", "lamp")
_SERIES = ("Alva", "Borg", "Ceres", "Dorn", "Elke", "Falk", "Gest", "Hede")
_ROOMS = ("kitchen", "study", "hall", "bedroom", "cellar", "porch", "attic", "bathroom")
_PROBLEMS = (
    "my parcel is late",
    "the invoice is wrong",
    "I forgot my password",
    "the lamp flickers",
)
_NAMES = ("Ada", "Bo", "Cleo", "Dan", "Eva", "Finn", "Gro", "Hal", "Ida", "Jon")
_VALLEYS = ("Orle", "Tamsin", "Vesk", "Quill", "Marrow", "Sund", "Hollin", "Brae", "Cask", "Lorn")


def instruction() -> Iterator[dict[str, Any]]:
    """Questions about an invented catalogue, each answered in the same sentence."""
    for dice in _dice():
        part, series = dice.choice(_PARTS), dice.choice(_SERIES)
        grams, price = dice.randrange(20, 900, 10), dice.randrange(5, 200)
        code = f"{series[0]}{part[0].upper()}-{grams:03d}"
        yield {
            "instruction": f"What do you have for order code {code}?",
            "output": f"{code}: {series} {part}, {grams} g, {price} euros, in stock.",
        }


def tool_calling() -> Iterator[dict[str, Any]]:
    """A wish, the call that grants it, what the tool says, and the answer."""
    tools = [
        _tool("set_light", {"room": "string", "percent": "integer"}),
        _tool("set_heating", {"room": "string", "degrees": "integer"}),
    ]
    for dice in _dice():
        room, light = dice.choice(_ROOMS), dice.random() < 0.5
        value = dice.randrange(0, 101, 10) if light else dice.randrange(15, 25)
        name, key = ("set_light", "percent") if light else ("set_heating", "degrees")
        unit = "per cent" if light else "degrees"
        what = "light" if light else "heating"
        call = {"name": name, "arguments": {"room": room, key: value}}
        yield {
            "tools": tools,
            "messages": [
                {"role": "user", "content": f"Set the {what} in the {room} to {value} {unit}."},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": call}],
                },
                {"role": "tool", "name": name, "content": '{"done": true}'},
                {"role": "assistant", "content": f"The {what} in the {room} is at {value} {unit}."},
            ],
        }


def preferences() -> Iterator[dict[str, Any]]:
    """Two replies to a customer: a short one that acts, and a long one that does not."""
    for dice in _dice():
        name, problem = dice.choice(_NAMES), dice.choice(_PROBLEMS)
        hours = dice.randrange(2, 48)
        yield {
            "prompt": f"{name} writes: Hello, {problem}. Case {dice.randrange(1000, 10000)}.",
            "chosen": f"Sorry, {name}. We are on it, and write to you within {hours} hours.",
            "rejected": f"Dear valued customer {name}, thank you very much for reaching out to us "
            "today. We truly appreciate your patience and understanding, and would like to assure you "
            "that your concern is very important to us.",
        }


def continued_pretraining() -> Iterator[dict[str, Any]]:
    """Entries of a gazetteer of places that do not exist: text, without questions."""
    for dice in _dice():
        valley, river = dice.sample(_VALLEYS, 2)
        people, height = dice.randrange(40, 4000), dice.randrange(100, 2400, 50)
        yield {
            "text": f"{valley}dale is a village on the river {river}, at {height} metres above the sea. "
            f"It has {people} inhabitants, a mill, and a market on every {dice.choice(('first', 'second', 'third'))} "
            f"Monday of the month. The road to {dice.choice(_VALLEYS)}dale closes in winter."
        }


def _dice() -> Iterator[random.Random]:
    return (random.Random(seed) for seed in range(_ROWS))


def _tool(name: str, kinds: dict[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": list(kinds)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


EXAMPLES = (instruction, tool_calling, preferences, continued_pretraining)


def main() -> None:
    """Write data.jsonl of each example."""
    for rows in EXAMPLES:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows()]
        file = HERE / rows.__name__ / "data.jsonl"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
