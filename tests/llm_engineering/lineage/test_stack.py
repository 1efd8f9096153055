"""What a configuration asks of a stack, merged into ZenML's own configuration of a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from separate_hosts.fixtures import separate_hosts
from zenml.enums import ExecutionMode

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ConfigError
from llm_engineering.lineage import stack

SECTION = {
    "resources": {"gpu_count": 2, "memory": "64GB"},
    "retries": {"max_retries": 2, "delay": 60},
    "docker": {"parent_image": "finetuning:1", "skip_build": True},
}


@pytest.fixture
def make_config(tmp_path):
    """A configuration that is only compiled: no model, no data is there."""

    def make(overrides=None):
        values = {
            "model": {"id": "acme/tiny"},
            "data": {"sources": [{"source": "acme/rows"}], "held_out": {"fraction": 0.1}},
        }
        for key, value in (overrides or {}).items():
            section, _, name = key.partition(".")
            values[section] = {**values.get(section, {}), name: value} if name else value
        return FinetuningConfig.model_validate(values)

    return make


def compiled(config):
    """The pipeline as ZenML would run it on the active stack."""
    from zenml.client import Client
    from zenml.config.compiler import Compiler
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    from pipelines.finetuning import finetuning

    pipeline = finetuning.copy()
    pipeline.prepare(config=config)
    return Compiler().compile(
        pipeline=pipeline,
        stack=Client().active_stack,
        run_configuration=PipelineRunConfiguration(),
    )


def test_the_section_is_part_of_the_run_by_whatever_way_it_is_compiled(make_config):
    config = make_config({"zenml": SECTION})
    snapshot = compiled(config)
    whole = snapshot.pipeline_configuration
    assert whole.docker_settings.parent_image == "finetuning:1"
    assert (whole.retry.max_retries, whole.retry.delay) == (2, 60)
    asked = {
        name: step.config.resource_settings for name, step in snapshot.step_configurations.items()
    }
    assert (asked["train"].gpu_count, asked["train"].memory) == (2, "64GB")
    assert {name for name, one in asked.items() if one.gpu_count} == {"train"}
    assert list(snapshot.pipeline_configuration.parameters) == ["config"]


def test_a_file_of_zenmls_own_command_compiles_the_same_run(make_config, tmp_path):
    """zenml pipeline run pipelines.finetuning.finetuning -c run.yaml"""
    import yaml

    from pipelines.finetuning import finetuning

    config = make_config({"zenml": SECTION})
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"parameters": {"config": config.model_dump(mode="json")}}))
    pipeline = finetuning.with_options(config_path=str(path))
    pipeline.prepare()
    theirs = pipeline._compile(config_path=str(path))[0]
    ours = compiled(config)
    assert theirs.step_configurations == ours.step_configurations
    assert theirs.pipeline_configuration.settings == ours.pipeline_configuration.settings
    read = FinetuningConfig.model_validate(theirs.pipeline_configuration.parameters["config"])
    assert read == config


def test_here_nothing_is_described_and_elsewhere_the_model_is(make_config, tmp_path):
    config = make_config()
    here = compiled(config).step_configurations
    assert here["load_model"].config.parameters["described_dtype"] is None
    assert here["look_at_inputs"].config.parameters["trained_elsewhere"] is False
    with separate_hosts(tmp_path):
        assert not stack.runs_here()
        apart = compiled(make_config({"model.dtype": "auto"})).step_configurations
    assert stack.runs_here()
    assert apart["load_model"].config.parameters["described_dtype"] == "auto"
    assert apart["inject_lora"].config.parameters["described"] is True
    assert "export" in apart["train"].config.parameters["deciding"]
    assert "export" not in here["train"].config.parameters["deciding"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"step_operator": "pods"},
            r"zenml.step_operator: pods, and the active stack \S+ has none",
        ),
        ({"experiment_tracker": "wb"}, "zenml.experiment_tracker: wb"),
        ({"secrets": ["hub"]}, "ZenML has no secret hub; make it"),
        ({"settings": {"orchestrator.local": {"a": 1}}}, "local takes no settings"),
    ],
)
def test_what_the_stack_has_not_got_is_refused(section, message, make_config):
    with pytest.raises(ConfigError, match=message):
        stack.require_stack(make_config({"zenml": section}))


def test_settings_of_another_stack_are_told_and_left(make_config):
    config = make_config(
        {"zenml": {**SECTION, "settings": {"orchestrator.kubernetes": {"synchronous": False}}}}
    )
    notes = stack.require_stack(config)
    assert len(notes) == 2
    assert notes[0].startswith("zenml.settings.orchestrator.kubernetes is not used")
    assert notes[1].startswith("zenml.resources.gpu_count (2) is not used")
    assert list(stack.run_options(config)["settings"]) == ["docker"]


def test_a_step_operator_takes_the_training_elsewhere(make_config, monkeypatch):
    found = SimpleNamespace(name="pods")
    real = stack.active_stack()
    monkeypatch.setattr(
        stack,
        "active_stack",
        lambda: SimpleNamespace(
            name="mixed",
            orchestrator=real.orchestrator,
            step_operator=found,
            experiment_tracker=None,
            all_components=[],
        ),
    )
    config = make_config({"zenml": {"step_operator": "pods"}})
    assert stack.require_stack(config) == []
    assert stack.runs_here()
    assert not stack.trains_here(config)
    assert stack.train_options(config) == {"step_operator": "pods"}


@pytest.mark.parametrize(
    ("known", "mode"),
    [
        (["continue_on_failure"], "continue_on_failure"),  # Airflow, Vertex AI, SageMaker, SkyPilot
        (["fail_fast", "stop_on_failure", "continue_on_failure"], "fail_fast"),
    ],
)
def test_it_stops_at_the_first_failure_where_the_orchestrator_can(
    known, mode, make_config, monkeypatch
):
    from zenml.orchestrators import LocalOrchestrator

    modes = property(lambda _: [ExecutionMode(name) for name in known])
    monkeypatch.setattr(LocalOrchestrator, "supported_execution_modes", modes)
    assert compiled(make_config()).pipeline_configuration.execution_mode.value == mode
