"""The section ``lora``: defaults of its own, and initialisations that are not to be had."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.lora import LoraSettings


def test_two_adapters_do_not_share_a_default_list() -> None:
    first, second = LoraSettings(), LoraSettings()

    assert first.target_modules == second.target_modules
    assert first.target_modules is not second.target_modules


def test_an_initialisation_that_is_not_to_be_had_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="olora changes the base weights"):
        LoraSettings(init="olora")
