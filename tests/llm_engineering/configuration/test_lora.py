"""The section ``lora``: initialisations that are not to be had."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.lora import LoraSettings


def test_an_initialisation_that_is_not_to_be_had_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="olora changes the base weights"):
        LoraSettings(init="olora")
