"""The proof that an export says what the trained model said: the figures, as a run records them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

ExportKind = Literal["adapter", "merged_16bit", "gguf"]
ProvenBy = Literal["outputs", "stored tensors", "outputs and stored tensors"]


class ParityProof(BaseModel):
    """How far one export is from the model that was trained."""

    export: ExportKind
    against: str = Field(description="What it was held against.")
    precision: str = Field(description="What it is stored and computed in, as TOLERANCES has it.")
    rows: int = Field(description="Held-out rows.")
    positions: int = Field(description="Positions whose logits were compared.")
    largest_difference: float = Field(description="Of a logit.")
    mean_kl: float = Field(description="Mean KL a position, in nats.")
    tolerated_difference: float = Field(description="Largest difference that is let pass.")
    tolerated_kl: float = Field(description="Largest mean KL that is let pass.")
    same_answers: int = Field(
        description="Greedy answers that are the same; the others part at a near tie."
    )
    effect: float | None = Field(
        description="Mean KL of the base model without the adapter, in nats, on the same positions."
    )
    proven_by: ProvenBy = Field(
        "outputs",
        description="What told it from another adapter. Outputs cannot where the adapter's whole "
        "effect is no larger than what rounding may make.",
    )
    tensors: int = Field(
        0,
        description="Stored tensors that were compared: an adapter's to the bit with those in the "
        "memory of the run; sampled rows of merged ones with base model + adapter, within rounding.",
    )
    update_kept: float | None = Field(
        None,
        description="Share of the adapter's change that rounding leaves in merged weights; None: "
        "not measured.",
    )

    @property
    def passed(self) -> bool:
        """Whether the differences are within what the precision explains."""
        return (
            self.largest_difference <= self.tolerated_difference
            and self.mean_kl <= self.tolerated_kl
        )
