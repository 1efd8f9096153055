"""What of the environment a scheduled run needs, since cron starts with next to nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llm_engineering.sagemaker.secret_scan import find_secrets

_KEPT = {
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
}
# Of the libraries that a run uses: where it looks for things, and how it computes. Not TZ: cron and
# systemd go by the host's.
_KEPT_FAMILIES = (
    "AWS_", "AZURE_", "CUDA_", "GOOGLE_", "HF_", "LC_", "MKL_", "MLFLOW_", "NCCL_", "NVIDIA_", "OMP_",
    "PYTORCH_", "TORCH_", "TRANSFORMERS_", "TRITON_", "UNSLOTH_", "WANDB_", "XDG_", "ZENML_",
)  # fmt: skip
# By name, so that no secret gets into a file: a token belongs where its own tool keeps it
# (`hf auth login`, an AWS profile, a ZenML secret).
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIALS?$|API_?KEY|ACCESS_KEY", re.I)
# They are of this session, or of this process, alone.
_PASSING = re.compile(
    r"XDG_(SESSION|RUNTIME|SEAT|VTNR)|ZENML_(CUSTOM_SOURCE_ROOT|ENABLE_RICH|LOGGING)"
)


def kept_environment() -> tuple[dict[str, str], list[str]]:
    """The variables that are set now and that a scheduled run should see; never a secret.

    Returns:
        The variables; and the names of those that were left out since they are secrets.
    """
    wanted = {
        name: value
        for name, value in sorted(os.environ.items())
        if (name in _KEPT or name.startswith(_KEPT_FAMILIES)) and not _PASSING.match(name)
    }
    secret = [
        name
        for name, value in wanted.items()
        if find_secrets(f"{name}={value}")
        or (_SECRET.search(name) and not Path(value).exists())  # HF_TOKEN_PATH names a file
    ]
    return {name: value for name, value in wanted.items() if name not in secret}, secret
