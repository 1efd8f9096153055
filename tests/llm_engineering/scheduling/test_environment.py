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
    kept = kept_environment()
    assert kept["ZENML_CONFIG_PATH"] == "/zen"
    assert kept["HF_HOME"] == "/hub"
    assert kept["HTTP_PROXY"] == "http://proxy:3128"
    assert "PATH" in kept
    assert not {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "SOMETHING_ELSE"} & kept.keys()
