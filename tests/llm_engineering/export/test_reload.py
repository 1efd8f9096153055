"""Where an export is read back: as few GPUs as hold it, before the CPU."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.export.reload import placement


@pytest.mark.parametrize(
    ("size", "free", "expected"),
    [
        (60, [80, 80], {"": "cuda:0"}),
        (60, [40, 80], {"": "cuda:1"}),
        (86, [80, 80], "balanced"),
        (150, [80, 80], {"": "cpu"}),
        (1, [], {"": "cpu"}),
    ],
)
def test_weights_that_no_gpu_holds_are_spread_over_all(
    size: int, free: list[int], expected: Any
) -> None:
    assert placement(size, free) == expected
