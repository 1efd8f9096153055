"""What a host has loaded before it is told its step."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads would not survive the fork

from llm_engineering.training_stack import import_unsloth

import_unsloth()


import pipelines.finetuning  # noqa: E402, F401
