"""What of the environment a scheduled run needs, since cron starts with next to nothing."""

from __future__ import annotations

import os

from llm_engineering.sagemaker.secret_scan import find_secrets

# By name, so that no secret gets into a file: a token belongs where its own tool keeps it
# (`hf auth login`, an AWS profile).
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "OMP_NUM_THREADS",
    "ZENML_CONFIG_PATH",
    "ZENML_ANALYTICS_OPT_IN",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


def kept_environment() -> dict[str, str]:
    """The variables that are set now and that a scheduled run should see; never a secret."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {name: value for name, value in kept.items() if not find_secrets(f"{name}={value}")}
