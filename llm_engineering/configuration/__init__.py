"""Configuration: one file a section of the YAML, and how a file and ``--set`` overrides become one."""

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.load import load_config, to_yaml

__all__ = ["FinetuningConfig", "load_config", "to_yaml"]
