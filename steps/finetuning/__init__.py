"""The steps of the fine-tuning pipeline, in order."""

from steps.finetuning.evaluate import evaluate
from steps.finetuning.inject_lora import inject_lora
from steps.finetuning.load_model import load_model
from steps.finetuning.look_at_inputs import look_at_inputs
from steps.finetuning.prepare_data import prepare_data
from steps.finetuning.promote import promote
from steps.finetuning.save_model import save_model
from steps.finetuning.train import train

__all__ = [
    "evaluate",
    "inject_lora",
    "load_model",
    "look_at_inputs",
    "prepare_data",
    "promote",
    "save_model",
    "train",
]
