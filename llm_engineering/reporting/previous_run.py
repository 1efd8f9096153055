"""The run before: what was configured otherwise, and what came of that."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm_engineering.reporting import formats

MANIFEST, METRICS = "manifest.json", "metrics.json"


@dataclass(frozen=True)
class Figure:
    """A figure of ``metrics.json``, as pages show it."""

    label: str
    shown: Callable[[float], str]
    better: Literal["lower", "higher"] | None = None
    """Which is better; None: neither, as of a count."""


FIGURES = {
    "held_out_loss_after": Figure("Held-out loss", formats.number, "lower"),
    "held_out_token_accuracy_after": Figure("Token accuracy", formats.percent, "higher"),
    "reward_margin_after": Figure("Reward margin", formats.number, "higher"),
    "reward_accuracy_after": Figure("Reward accuracy", formats.percent, "higher"),
    "generic_loss_change": Figure("Loss on general text, change", formats.change, "lower"),
    "tokens_per_second": Figure("Tokens per second", formats.number, "higher"),
    "train_seconds": Figure("Training time", formats.duration, "lower"),
    "peak_memory_bytes": Figure("Peak memory", lambda value: formats.size(int(value)), "lower"),
    "train_steps": Figure("Optimizer steps", lambda value: formats.count(int(value))),
}
"""By the name that ``metrics.json`` has for each."""
_ITS_OWN = ("run.name",)
"""Keys that differ between any two runs."""


@dataclass(frozen=True)
class PreviousRun:
    """A run of the same base model and first source, and what this one has otherwise."""

    name: str
    settings: list[tuple[str, str, str]]
    """Key, its value then and now."""
    figures: list[tuple[str, str, str]]
    """What, then and now; as people read them."""
    same_data: bool
    """False: the prepared data differ, and so may the rows that the losses are of."""


def previous_run(
    output_dir: str | Path, name: str, manifest: Mapping[str, Any], figures: Mapping[str, float]
) -> PreviousRun | None:
    """The newest finished run in the output folder that trained the same model on the same source.

    Args:
        output_dir: As ``run.output_dir``.
        name: Of the run whose predecessor is wanted.
        manifest: Of that run, as JSON.
        figures: Of that run, as in ``metrics.json``.

    Returns:
        None if there is none, or its files are of another version of the project.
    """
    found: list[tuple[str, Path, dict[str, Any]]] = []
    for path in Path(output_dir).glob(f"*/{MANIFEST}"):
        if path.parent.name in (name, "latest") or path.parent.is_symlink():
            continue
        other = _read(path)
        if other and _trains(other) == _trains(manifest) and other["created"] < manifest["created"]:
            found.append((other["created"], path.parent, other))
    if not found:
        return None
    _, folder, other = max(found, key=lambda one: one[0])
    theirs = _read(folder / METRICS) or {}
    return PreviousRun(
        name=folder.name,
        settings=setting_differences([other["config"], manifest["config"]]),
        figures=[
            (figure.label, figure.shown(theirs[key]), figure.shown(figures[key]))
            for key, figure in FIGURES.items()
            if key in theirs and key in figures
        ],
        same_data=other.get("data_digest") == manifest.get("data_digest"),
    )


def figure_rows(runs: list[Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """The figures of several runs, as people read them; – where a run has none.

    Returns:
        By the key that ``FIGURES`` has for it, each run's.
    """
    return [
        (key, [figure.shown(run[key]) if key in run else "–" for run in runs])
        for key, figure in FIGURES.items()
        if any(key in run for run in runs)
    ]


def setting_differences(configs: list[Mapping[str, Any]]) -> list[Any]:
    """The keys whose values are not the same in all resolved configurations, with each value.

    Returns:
        Tuples of the dotted key and each configuration's value as YAML writes it in a line; – where
        it has no such key.
    """
    flat = [dict(_flat(config, "")) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one if name not in _ITS_OWN)
    return [
        (name, *(one.get(name, "–") for one in flat))
        for name in names
        if len({one.get(name, "–") for one in flat}) > 1
    ]


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [
            pair
            for key, inner in value.items()
            for pair in _flat(inner, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [pair for index, item in enumerate(value) for pair in _flat(item, f"{name}.{index}")]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _trains(manifest: Mapping[str, Any]) -> tuple[str, str]:
    config = manifest["config"]
    return config["model"]["id"], config["data"]["sources"][0]["source"]


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if it is none, or lacks what every manifest has."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if path.name == MANIFEST:
            _trains(value)
            str(value["created"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return value if isinstance(value, dict) else None
