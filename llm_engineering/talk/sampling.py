"""How answers are drawn: greedily, or by the settings that the base model ships for its users."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

_OF_THE_MODEL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class Sampling(BaseModel):
    """Settings of generation; written beside what was generated with them."""

    temperature: float = Field(0.0, ge=0.0, description="0: greedy, the likeliest token each time.")
    others: dict[str, float] = Field(
        {}, description="top_p, top_k, min_p, repetition_penalty, as transformers names them."
    )
    max_new_tokens: int = Field(512, gt=0, description="Longest answer, in tokens.")

    def arguments(self) -> dict[str, Any]:
        """For transformers' ``GenerationConfig``."""
        return {
            "do_sample": bool(self.temperature),
            "max_new_tokens": self.max_new_tokens,
            **self._drawn,
        }

    @property
    def _drawn(self) -> dict[str, float]:
        return {"temperature": self.temperature, **self.others} if self.temperature else {}

    def __str__(self) -> str:
        if not self.temperature:
            return f"greedy, at most {self.max_new_tokens} tokens"
        settings = ", ".join(f"{name} {value:g}" for name, value in self._drawn.items())
        return f"{settings}, at most {self.max_new_tokens} tokens"


def sampling_of(model: Any) -> Sampling:
    """What the base model's ``generation_config.json`` asks for; greedy where it asks for nothing."""
    stated = model.generation_config
    if not getattr(stated, "do_sample", False):
        return Sampling()
    values = {name: getattr(stated, name, None) for name in _OF_THE_MODEL}
    temperature = values.pop("temperature")
    return Sampling(
        temperature=1.0 if temperature is None else temperature,
        others={name: value for name, value in values.items() if value is not None},
    )
