"""What the cache must notice of the host: a type and a device that were resolved elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.lineage import look
from llm_engineering.lineage.run_order import RunOrder


@pytest.fixture
def host(monkeypatch):
    """A host of the test's own choice."""
    found = SimpleNamespace(dtype="float32", device="cpu")
    now = SimpleNamespace(data="d", model="m", code="c", start="s")
    monkeypatch.setattr(look, "take_fingerprints", lambda _: now)
    monkeypatch.setattr(look, "resolve_dtype", lambda _: found.dtype)
    monkeypatch.setattr(look, "device_kind", lambda: found.device)
    return found


def config_of(**sections):
    return FinetuningConfig.model_validate(
        {
            "model": {"id": "acme/tiny", "dtype": "auto"},
            "data": {"sources": [{"source": "acme/rows"}], "held_out": {"fraction": 0.1}},
            **sections,
        }
    )


def seen(config, *, elsewhere=False):
    return look.look_at_inputs(config, RunOrder(), trained_elsewhere=elsewhere)


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"device": "NVIDIA H100"}])
def test_another_hosts_type_and_device_are_another_model_and_training(change, host):
    config = config_of()
    here = seen(config)
    vars(host).update(change)
    there = seen(config)
    assert here.data == there.data
    assert here.model != there.model
    assert here.code != there.code
    assert here.training != there.training


def test_elsewhere_this_host_says_nothing(host):
    config = config_of()
    here = seen(config, elsewhere=True)
    host.dtype, host.device = "bfloat16", "NVIDIA H100"
    assert seen(config, elsewhere=True) == here
    more = config_of(zenml={"resources": {"gpu_count": 2}})
    assert seen(more, elsewhere=True).training != here.training
