"""What is no adapter to start from."""

import pytest

from llm_engineering.errors import LoraError
from llm_engineering.registry.starting_adapter import starting_adapter


def test_what_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(LoraError, match=r"has no adapter_config\.json and no adapter_model"):
        starting_adapter(str(tmp_path))
    with pytest.raises(LoraError, match=r"train\.start_from: no folder nowhere/at-all"):
        starting_adapter("nowhere/at-all")
