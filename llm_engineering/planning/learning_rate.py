"""``train.learning_rate: auto``: the peak rate by the model's width and family."""

from __future__ import annotations

from pydantic import BaseModel, Field

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import model_folder, read_config

_FULL, _LORA = 5e-5, 10.0
_WIDTH = 2000
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_EXPONENTS = {"llama": 0.781, "qwen": 0.0775}
_PISSA = 2e-5
_ALPHA = 32


class ChosenRate(BaseModel):
    """A learning rate, and where it comes from."""

    rate: float = Field(description="Peak learning rate.")
    reason: str = Field(description="Whose fit it is, and what else decided.")

    def in_place_of_auto(self, config: FinetuningConfig) -> FinetuningConfig:
        """The configuration with the number, so that all that follows, and a repetition, has it."""
        train = config.train.model_copy(update={"learning_rate": self.rate})
        return config.model_copy(update={"train": train})

    def __str__(self) -> str:
        return f"{self.rate:g} (auto: {self.reason})"


def choose_learning_rate(config: FinetuningConfig) -> ChosenRate | None:
    """The rate that ``auto`` stands for; None where the configuration gives a number.

    ``5e-5 x 10 x (2000 / hidden)^P``, rounded to three digits, with P = 0.781 for Llama and 0.0775 for
    Qwen: the fit of supervised LoRA trainings in tinker-cookbook (``hyperparam_utils.get_lr``), made
    with lora_alpha 32, where the best rate does not depend on the rank ("LoRA Without Regret",
    thinkingmachines.ai, 2025). There is no fit of other families: they get the lower of the two, which
    errs towards slow. PiSSA starts from the weights' principal directions, where curvature is largest
    (arXiv 2602.04998, section 5), and gets its paper's rate at most (2e-5; arXiv 2404.02948,
    section 5).

    Raises:
        ModelError: The model's config.json cannot be had, or says no width.
    """
    if config.train.learning_rate != "auto":
        return None
    stated = read_config(model_folder(config.model, weights=False))
    text = stated.get("text_config")
    stated = {**stated, **text} if isinstance(text, dict) else stated
    hidden = next((stated[key] for key in _WIDTHS if isinstance(stated.get(key), int)), None)
    family = str(stated.get("model_type"))
    if hidden is None:
        raise ModelError(
            f"train.learning_rate: auto needs the model's width, and the config.json of "
            f"{config.model.id} has no hidden_size; give a number, for example 3e-4"
        )
    fits = {
        name: _FULL * _LORA * (_WIDTH / hidden) ** exponent for name, exponent in _EXPONENTS.items()
    }
    own = next((name for name in fits if name in family), None)
    name = own or min(fits, key=lambda each: fits[each])
    reason = f"tinker-cookbook's fit for {name.capitalize()} at a width of {hidden}"
    if own is None:
        reason = f"no fit of {family} is known; {reason}, the lower of two"
    rate = fits[name]
    if config.lora.init == "pissa" and rate > _PISSA:
        rate, reason = (
            _PISSA,
            f"{reason} is {rate:.3g}, and lora.init: pissa takes {_PISSA:g} at most",
        )
    if config.lora.lora_alpha != _ALPHA or config.lora.use_rslora:
        reason += (
            f"; the fit is of lora_alpha {_ALPHA} without use_rslora, and this adapter is scaled "
            "otherwise"
        )
    return ChosenRate(rate=float(f"{rate:.3g}"), reason=reason)
