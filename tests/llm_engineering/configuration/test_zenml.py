"""The section ``zenml``: ZenML's own classes check it when the file is read."""

from __future__ import annotations

import pytest

from llm_engineering.configuration import load_config
from llm_engineering.errors import ConfigError

FILE = """
model: {id: some/model}
data: {sources: [{source: some/data}], held_out: {fraction: 0.1}}
zenml:
  resources: {gpu_count: 2, memory: 64GB}
  docker: {parent_image: finetuning:1, skip_build: true}
  settings:
    orchestrator.kubernetes: {service_account_name: finetuning}
"""


@pytest.fixture
def read(tmp_path):
    def load(*overrides):
        path = tmp_path / "config.yaml"
        path.write_text(FILE)
        return load_config(path, overrides)

    return load


def test_a_good_section_is_read(read):
    zenml = read().zenml
    assert (zenml.resources.gpu_count, zenml.resources.memory) == (2, "64GB")
    assert read("zenml.retries={max_retries: 3}").zenml.retries.max_retries == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("zenml.resources.memory=64", "memory"),
        ("zenml.resources.memory=lots", "resources.memory: String should match pattern"),
        ("zenml.docker.parent_imag=a", "parent_imag is no key of ZenML's DockerSettings; did you"),
        ("zenml.docker.skip_build=perhaps", "skip_build: Input should be a valid boolean"),
        ("zenml.settings={kubernetes: {}}", "'kubernetes' names no stack component"),
        ("zenml.retries={max_retries: 0}", "zenml.retries.max_retries"),
        ("zenml.step_operators=x", "zenml.step_operators"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(read, override, message):
    with pytest.raises(ConfigError, match=message) as error:
        read(override)
    assert "zenml" in str(error.value)
