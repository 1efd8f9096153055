"""Schedules on stacks whose orchestrator keeps them, against those flavours' own code."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from llm_engineering.errors import ConfigError, SetupError
from llm_engineering.scheduling import orchestrator

pytestmark = pytest.mark.slow

# ZenML's SageMaker orchestrator asks for the SDK before the one that this project uses.
SDK_V2 = (
    "estimator",
    "image_uris",
    "inputs",
    "network",
    "processing",
    "session",
    "workflow",
    "workflow.entities",
    "workflow.execution_variables",
    "workflow.pipeline",
    "workflow.step_collections",
    "workflow.steps",
    "workflow.triggers",
)


@pytest.mark.parametrize(
    ("module", "config", "values"),
    [
        (
            "kubernetes.flavors.kubernetes_orchestrator_flavor",
            "KubernetesOrchestratorConfig",
            {"kubernetes_context": "cluster"},
        ),
        (
            "airflow.flavors.airflow_orchestrator_flavor",
            "AirflowOrchestratorConfig",
            {"local": False},
        ),
        (
            "aws.flavors.sagemaker_orchestrator_flavor",
            "SagemakerOrchestratorConfig",
            {"execution_role": "arn:aws:iam::123456789012:role/R"},
        ),
    ],
)
def test_the_flavours_of_a_fleet_keep_schedules(module, config, values):
    flavour = getattr(importlib.import_module(f"zenml.integrations.{module}"), config)
    assert flavour(**values).is_schedulable


def test_the_local_orchestrator_does_not():
    from zenml.client import Client

    assert Client().active_stack.orchestrator.flavor == "local"
    assert not orchestrator.is_available()


def test_a_stack_whose_packages_are_not_here_says_so(monkeypatch):
    from zenml import client

    class Broken:
        active_stack_model = SimpleNamespace(name="fleet")

        @property
        def active_stack(self):
            raise ImportError("install the kubernetes integration")

    monkeypatch.setattr(client, "Client", Broken)
    with pytest.raises(SetupError, match=r"stack fleet needs packages .* zenml stack set default"):
        orchestrator.is_available()


@pytest.mark.parametrize("flavor", ["kubernetes", "airflow", "vertex", "kubeflow"])
def test_others_read_a_cron_expression_as_it_is(make_schedule, flavor):
    built = orchestrator.zenml_schedule(make_schedule(cron="0 0 13 * 5"), flavor)
    assert (built.name, built.cron_expression, built.catchup) == ("nightly", "0 0 13 * 5", False)


def test_sagemakers_own_validation_takes_the_expression(make_schedule, monkeypatch):
    for name in SDK_V2:
        monkeypatch.setitem(sys.modules, f"sagemaker.{name}", MagicMock())
    if "sagemaker" not in sys.modules:
        monkeypatch.setitem(sys.modules, "sagemaker", MagicMock())
    module = importlib.import_module("zenml.integrations.aws.orchestrators.sagemaker_orchestrator")
    validate = module.SagemakerOrchestrator._validate_cron_expression
    built = orchestrator.zenml_schedule(make_schedule(cron="0 3 * * 1"), "sagemaker")
    assert validate(built.cron_expression) == "0 3 ? * MON *"
    with pytest.raises(ValueError, match="6 or 7 fields"):
        validate("0 3 * * 1")
    with pytest.raises(ConfigError, match="restricts day of month and day of week"):
        orchestrator.zenml_schedule(make_schedule(cron="0 0 13 * 5"), "sagemaker")


@pytest.fixture
def airflow_stack(tmp_path, monkeypatch):
    """A stack with ZenML's Airflow orchestrator; only its image is not built. Its DAGs' folder."""
    from zenml.client import Client
    from zenml.enums import StackComponentType
    from zenml.orchestrators import ContainerizedOrchestrator
    from zenml.pipelines import build_utils

    monkeypatch.setattr(build_utils, "reuse_or_create_pipeline_build", lambda **_: None)
    monkeypatch.setattr(ContainerizedOrchestrator, "get_image", lambda *_, **__: "finetuning:1")
    client, before = Client(), Client().active_stack_model
    client.create_stack_component("airflow", "airflow", StackComponentType.ORCHESTRATOR, {})
    client.create_stack_component("builder", "local", StackComponentType.IMAGE_BUILDER, {})
    client.create_stack(
        "airflow",
        {
            StackComponentType.ORCHESTRATOR: "airflow",
            StackComponentType.ARTIFACT_STORE: "default",
            StackComponentType.IMAGE_BUILDER: "builder",
        },
    )
    client.activate_stack("airflow")
    yield Path(client.active_stack.orchestrator.dags_directory)
    client.activate_stack(before.id)
    client.delete_stack("airflow", recursive=True)


def dag(file: Path) -> dict:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("config.json"))


def test_airflow_gets_a_dag_that_looks_at_the_inputs_at_each_run(
    airflow_stack, make_config, make_schedule
):
    from zenml.client import Client

    assert orchestrator.is_available()
    schedule = make_schedule(cron="0 3 * * 1", clock="orchestrator")
    orchestrator.install(schedule, make_config())
    (kept,) = Client().list_schedules(name="nightly").items
    assert (kept.cron_expression, kept.active, kept.catchup) == ("0 3 * * 1", True, False)
    (file,) = airflow_stack.glob("*.zip")
    values = dag(file)
    assert (values["schedule"], values["catchup"]) == ("0 3 * * 1", False)
    steps = {task["id"]: task["upstream_steps"] for task in values["tasks"]}
    assert steps["look_at_inputs"] == []
    for name in ("prepare_data", "load_model", "train", "evaluate"):
        assert "look_at_inputs" in steps[name], name

    orchestrator.install(make_schedule(cron="0 4 * * 1", clock="orchestrator"), make_config())
    (kept,) = Client().list_schedules(name="nightly").items
    assert kept.cron_expression == "0 4 * * 1", "one of the same name is replaced"
    orchestrator.remove(schedule)
    assert Client().list_schedules(name="nightly").total == 0


def test_airflow_takes_a_run_that_is_started_by_hand(airflow_stack, make_config):
    """As --finetune and ZenML's own command give it, which know no schedule."""
    from zenml.client import Client

    from pipelines.finetuning import finetuning

    finetuning.with_options(run_name="by-hand")(config=make_config())
    (file,) = airflow_stack.glob("*.zip")
    assert len(dag(file)["tasks"]) == 8
    assert Client().list_pipeline_runs(name="by-hand", status="completed").total == 0


def test_an_orchestrator_that_fails_leaves_no_schedule_in_zenml(
    airflow_stack, make_config, make_schedule, monkeypatch
):
    from zenml.client import Client
    from zenml.integrations.airflow.orchestrators import AirflowOrchestrator

    def refuse(*_, **__):
        raise RuntimeError("no such cluster")

    monkeypatch.setattr(AirflowOrchestrator, "submit_pipeline", refuse)
    with pytest.raises(RuntimeError, match="no such cluster"):
        orchestrator.install(make_schedule(clock="orchestrator"), make_config())
    assert Client().list_schedules(name="nightly").total == 0


@pytest.mark.long
def test_a_run_as_an_orchestrator_starts_it_notices_new_data_by_itself(make_config, tmp_path):
    """The same pipeline object, run here: nothing new comes from the cache, new data does not."""
    from pipelines.finetuning import finetuning

    name = "nightly-{date}-{time}"
    config = make_config({"model.max_seq_length": 125})  # nothing of another test's in the cache
    run = finetuning.with_options(run_name=name)

    def cached(finished) -> set[str]:
        return {step for step, run in finished.steps.items() if str(run.status) == "cached"}

    computed = {"prepare_data", "load_model", "inject_lora", "train", "evaluate"}
    first = run(config=config)
    assert cached(first) == set()
    assert first.name.startswith("nightly-20")
    decision = json.loads((tmp_path / "outputs" / first.name / "promotion.json").read_text())
    assert decision["version"] == first.name, "the version of the run is found by its name"
    manifest = json.loads((tmp_path / "outputs" / first.name / "manifest.json").read_text())
    assert 0 < manifest["wall_seconds"] < 600
    assert cached(run(config=config)) == computed
    with open(config.data.sources[0].source, "a") as file:
        file.write('{"instruction": "Is this new?", "response": "Yes."}\n')
    assert cached(run(config=config)).isdisjoint({"prepare_data", "train", "evaluate"})
