"""Trackers: what is missing is said with its command; MLflow, where it is installed, gets figures."""

import importlib.util
from pathlib import Path

import pytest

from llm_engineering.errors import SetupError
from llm_engineering.model.finetuning import trackers


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        trackers.importlib.util,
        "find_spec",
        lambda name, *more: None if name in ("wandb", "comet_ml") else found(name, *more),
    )
    with pytest.raises(SetupError) as error:
        trackers.require_trackers(["wandb", "comet"])
    assert str(error.value).startswith(
        "train.trackers: wandb, comet is not installed; `.venv/bin/pip install wandb comet-ml`"
    )
    trackers.require_trackers([])


def test_tensorboards_files_outlive_the_work_folder(monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    assert trackers.report_to([], Path("outputs/.work/r")) == "none"
    assert trackers.report_to(["comet", "tensorboard"], Path("outputs/.work/r")) == [
        "comet_ml",
        "tensorboard",
    ]
    assert trackers.os.environ["TENSORBOARD_LOGGING_DIR"] == "outputs/tensorboard/r"
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is optional")
def test_mlflow_gets_the_losses(run, make_config, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    _, _, _, record = run(make_config({"train.trackers": ["mlflow"]}), tmp_path)
    import mlflow

    mlflow.end_run()
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    logged = client.get_metric_history(found.info.run_id, "loss")
    assert [round(m.value, 6) for m in logged] == [round(p.loss, 6) for p in record.points]
