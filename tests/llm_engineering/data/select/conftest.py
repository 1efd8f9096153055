"""What the tests of selecting share: rows, sources that name files, and stored texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.rows.row_store import RowStore, to_stored
from llm_engineering.errors import DataError

Prepare = Callable[[FinetuningConfig], PreparedDataset]


@pytest.fixture
def good() -> dict[str, Any]:
    """A row that can be trained on."""
    return {"instruction": "What is 1 + 1?", "response": "Two."}


@pytest.fixture
def other() -> dict[str, Any]:
    """Another."""
    return {"instruction": "What is 2 + 2?", "response": "Four."}


@pytest.fixture
def refusal(prepare: Prepare) -> Callable[[FinetuningConfig], str]:
    """Why a configuration's data is refused."""

    def refused(config: FinetuningConfig) -> str:
        with pytest.raises(DataError) as caught:
            prepare(config)
        return str(caught.value)

    return refused


@pytest.fixture
def sources() -> Callable[..., dict[str, Any]]:
    """Overrides of a configuration that make files its sources."""

    def of(*paths: Path, **settings: Any) -> dict[str, Any]:
        return {"data.sources": [{"source": str(path), **settings} for path in paths]}

    return of


@pytest.fixture
def line_numbers() -> Callable[[PreparedDataset, str], list[int]]:
    """The lines that a split's rows came from."""

    def numbers(prepared: PreparedDataset, split: str) -> list[int]:
        return [int(origin.rpartition(":")[2]) for origin in prepared.split(split)["origin"]]

    return numbers


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Callable[..., RowStore[str]]]:
    """Store texts, so many in a batch; they are of ``rows.jsonl:1`` and the lines after."""
    import json

    stores: list[RowStore[str]] = []

    def store(texts: Sequence[str], batch: int = 1000) -> RowStore[str]:
        made: RowStore[str] = RowStore(tmp_path / f"rows-{len(stores)}.arrow", str)
        stores.append(made)
        for start in range(0, len(texts), batch):
            some = texts[start : start + batch]
            origins = [f"rows.jsonl:{start + number}" for number in range(1, len(some) + 1)]
            made.add(to_stored(origins, [json.dumps(text) for text in some]))
        made.close()
        return made

    yield store
    for made in stores:
        made.remove()
