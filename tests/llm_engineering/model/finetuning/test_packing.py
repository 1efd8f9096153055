"""Rows in one sequence: kept apart by attention, and refused where a layer carries state."""

from __future__ import annotations

import pytest
import torch
from families.shapes import FAMILIES

from llm_engineering.errors import ConfigError
from llm_engineering.model.finetuning.packing import carrying_layer, require_packable
from llm_engineering.model_class import model_class
from llm_engineering.training_stack import import_unsloth

FIRST, SECOND = [11, 12, 13, 14, 15], [21, 22, 23, 24]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_passes_only_if_its_second_row_reads_as_it_does_alone(name: str) -> None:
    """The row's logits, packed as trl packs (positions that begin again, no mask), and alone."""
    import_unsloth()
    config = FAMILIES[name].configuration()
    if FAMILIES[name].vision:
        config.architectures = [
            f"{FAMILIES[name].config.removesuffix('Config')}ForConditionalGeneration"
        ]
    torch.manual_seed(0)
    model = model_class(config).from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # a tiny model's layers hardly move what they add to
        positions = [*range(len(FIRST)), *range(len(SECOND))]
        packed = model(
            input_ids=torch.tensor([FIRST + SECOND]),
            position_ids=torch.tensor([positions]),
            use_cache=False,
        ).logits[:, len(FIRST) :]
        alone = model(input_ids=torch.tensor([SECOND]), use_cache=False).logits
    same = torch.allclose(packed, alone, atol=1e-3 * float(alone.abs().max()))
    assert same == (carrying_layer(model) is None)
    if not same:
        with pytest.raises(ConfigError, match=r"train\.packing: true would let"):
            require_packable(model)
