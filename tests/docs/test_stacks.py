"""The stacks of docs/stacks.md: each part of a configuration against its flavour's own classes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import yaml

from llm_engineering.configuration.zenml import ZenmlSettings, checked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "stacks.md"
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)]
CLASSES = {
    "orchestrator.kubernetes": (
        "kubernetes.flavors.kubernetes_orchestrator_flavor",
        "KubernetesOrchestratorSettings",
    ),
    "orchestrator.vertex": ("gcp.flavors.vertex_orchestrator_flavor", "VertexOrchestratorSettings"),
    "orchestrator.sagemaker": (
        "aws.flavors.sagemaker_orchestrator_flavor",
        "SagemakerOrchestratorSettings",
    ),
    "orchestrator.airflow": (
        "airflow.flavors.airflow_orchestrator_flavor",
        "AirflowOrchestratorSettings",
    ),
    "orchestrator.vm_aws": (
        "skypilot_aws.flavors.skypilot_orchestrator_aws_vm_flavor",
        "SkypilotAWSOrchestratorSettings",
    ),
}


def settings_class(key):
    module, name = CLASSES[key]
    return getattr(importlib.import_module(f"zenml.integrations.{module}"), name)


def component_settings():
    for block in BLOCKS:
        section = ZenmlSettings(**block["zenml"])
        for part in (section.settings, section.train_settings):
            yield from part.items()


class Toleration(SimpleNamespace):
    """Kubernetes' V1Toleration, by whose tables ZenML reads a dictionary."""

    attribute_map: ClassVar = {
        "effect": "effect",
        "key": "key",
        "operator": "operator",
        "toleration_seconds": "tolerationSeconds",
        "value": "value",
    }
    openapi_types: ClassVar = dict.fromkeys(attribute_map, "str") | {"toleration_seconds": "int"}


@pytest.fixture(autouse=True)
def without_the_clusters_client(monkeypatch):
    """Kubernetes' own client, whose objects the settings take too, is not installed here."""
    if importlib.util.find_spec("kubernetes") is None:
        models = SimpleNamespace(V1Toleration=Toleration)
        models.client = SimpleNamespace(models=models)
        for name in ("kubernetes", "kubernetes.client", "kubernetes.client.models"):
            monkeypatch.setitem(sys.modules, name, models)


def test_every_part_is_what_its_flavour_takes():
    keys = set()
    for key, values in component_settings():
        checked(settings_class(key), values)
        keys.add(key)
    assert keys == set(CLASSES)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        (
            "orchestrator.kubernetes",
            {"pod_settings": {"node_selector": {"a": "b"}}},
            r"pod_settings.node_selector is no key of ZenML's KubernetesPodSettings; did you mean "
            "node_selectors",
        ),
        (
            "orchestrator.kubernetes",
            {"pod_startup_timeout": "soon"},
            "pod_startup_timeout: Input should be a valid integer",
        ),
        ("orchestrator.vertex", {"node_selector_constraint": ["one"]}, "node_selector_constraint"),
    ],
)
def test_what_a_flavour_would_pass_over_or_refuse_is_refused(key, values, message):
    with pytest.raises(ValueError, match=message):
        checked(settings_class(key), values)


def test_the_image_holds_what_its_set_up_needs():
    root = PAGE.parents[1]
    ignored = [
        line.removeprefix("**/").rstrip("/")
        for line in (root / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert {".git", ".venv", "outputs", "models", ".env*"} <= set(ignored)
    makefile = (root / "Makefile").read_text().replace("\\\n", " ")
    (needs,) = re.findall(r"^\.venv/\.installed: (.*)$", makefile, re.M)
    (poetry,) = re.findall(r"^\.poetry/\.installed: (.*)$", makefile, re.M)
    project = ["README.md", "llm_engineering", "pipelines", "steps", "configs", "poetry.toml"]
    for needed in {*needs.split(), *poetry.split(), *project} - {".poetry/.installed"}:
        assert (root / needed).exists()
        assert needed.split("/")[0] not in ignored
