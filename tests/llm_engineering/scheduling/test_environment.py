"""What of the environment goes into a schedule's file."""

from __future__ import annotations

from llm_engineering.scheduling.environment import kept_environment


def test_settings_are_kept_and_secrets_are_not(monkeypatch):
    monkeypatch.setenv("ZENML_CONFIG_PATH", "/zen")
    monkeypatch.setenv("HF_HOME", "/hub")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a1" * 17)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:" + "Tr0ub4dor" + "@proxy:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    kept, secret = kept_environment()
    assert kept["ZENML_CONFIG_PATH"] == "/zen"
    assert kept["HF_HOME"] == "/hub"
    assert kept["HTTP_PROXY"] == "http://proxy:3128"
    assert "PATH" in kept
    assert not {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "SOMETHING_ELSE"} & kept.keys()
    assert {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"} <= set(secret)


def test_where_runs_are_tracked_and_which_stack_is_active_is_kept(monkeypatch, tmp_path):
    wanted = {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "ZENML_STORE_URL": "http://zenml:8080",
        "ZENML_ACTIVE_STACK_ID": "3a2f",
        "WANDB_PROJECT": "qa",
        "AWS_ENDPOINT_URL": "http://s3:9000",
        "LC_ALL": "C.UTF-8",
        "HF_TOKEN_PATH": str(tmp_path),
    }
    dropped = {"ZENML_STORE_PASSWORD": "x", "WANDB_API_KEY": "y", "MLFLOW_TRACKING_TOKEN": "z"}
    for name, value in (wanted | dropped | {"TZ": "Asia/Tokyo"}).items():
        monkeypatch.setenv(name, value)
    kept, secret = kept_environment()
    assert wanted.items() <= kept.items()
    assert set(dropped) <= set(secret)
    assert "TZ" not in kept, "cron and systemd go by the host's"
