"""Configuration: its schema, and how a file and ``--set`` overrides become one."""

from llm_engineering.configuration.load import load_config, to_yaml
from llm_engineering.configuration.schema import FinetuningConfig

__all__ = ["FinetuningConfig", "load_config", "to_yaml"]
