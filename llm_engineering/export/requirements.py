"""What exports need, checked before anything is trained."""

from __future__ import annotations

import os

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ConfigError
from llm_engineering.export.gguf import require_converter
from llm_engineering.export.hub import TOKEN
from llm_engineering.export.merge import require_mergeable
from llm_engineering.model.base_model import is_hub_model, model_folder


def require_exports(config: FinetuningConfig) -> None:
    """Check that the configured exports can be made, without reading a weight.

    Raises:
        ConfigError: No token to push with, or an adapter whose base model nobody else could find.
        ExportError: The base model is of a kind that nothing can be merged into.
        SetupError: The converter to GGUF is not here.
    """
    export = config.export
    if export.merged_16bit:
        require_mergeable(model_folder(config.model, weights=False))
    if export.gguf and config.model.rope_scaling:
        raise ConfigError(
            "export.gguf: transformers reads no stretched positions from a GGUF file, so that it could "
            "not be proven; leave it out, or model.rope_scaling"
        )
    if export.gguf:
        require_converter(export.gguf)
    repositories = [name for name in (export.hub_repo, export.hub_merged_repo) if name]
    if repositories and not os.environ.get(TOKEN):
        raise ConfigError(
            f"export: pushing to {' and '.join(repositories)} needs a token that may write there: "
            f"set {TOKEN} in the environment"
        )
    if export.hub_repo and not is_hub_model(config.model):
        raise ConfigError(
            f"export.hub_repo: the adapter would name {config.model.id}, a folder of this host, as "
            "its base model; set model.id to the model's Hub id, or push the merged model "
            "(export.hub_merged_repo)"
        )
