"""Plain PEFT under FSDP2: the backend of a rank that keeps a part of every layer.

For a base model that no single GPU holds.

By accelerate's plugin around plain transformers and PEFT; unsloth is not imported on such a rank,
since its own FSDP needs a GPU to be tried at all, and its other paths one whole model a rank.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.distributed import world
from llm_engineering.errors import LoraError, ModelError
from llm_engineering.model_class import model_class
from llm_engineering.training_stack import leave_unsloth_out


class FsdpBackend:
    """As ``model.finetuning.backend.Backend``."""

    takes_adapters: ClassVar[bool] = False

    def __init__(self) -> None:
        """Make this rank one of those that share the weights, before a library looks.

        The first rank of a host reads the weights into host memory, the others only their shapes;
        the trainer hands each its part.
        """
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "true"
        leave_unsloth_out()

    def load(self, folder: Path, settings: ModelSettings, dtype: str) -> Any:
        """By transformers: on the CPU, or without memory where another rank reads the weights."""
        import torch
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
        if getattr(config, "quantization_config", None):
            raise ModelError(
                f"model.id: the weights of {settings.id} are quantised on disk, and GPUs share 16-bit "
                "ones alone; name the 16-bit model"
            )
        model = model_class(config).from_pretrained(
            folder, dtype=getattr(torch, dtype), trust_remote_code=settings.trust_remote_code
        )
        model.config.use_cache = False
        return model

    def add_adapter(self, model: Any, settings: LoraSettings, options: dict[str, Any]) -> Any:
        """By PEFT, of the same initial weights as unsloth's."""
        from peft import LoraConfig, get_peft_model
        from transformers import set_seed

        set_seed(settings.random_state)
        return get_peft_model(model, LoraConfig(**options, task_type="CAUSAL_LM"))

    def set_checkpointing(self, model: Any, kind: str) -> None:
        """Nothing: ``sharding_arguments`` turn plain checkpointing on, the one that plans choose."""

    @contextmanager
    def precision(self, model: Any, dtype: str) -> Iterator[None]:
        """Nothing: trl computes in what its arguments say."""
        yield

    def sft_trainer(self) -> type:
        """trl's, with what sharing asks of it."""
        return sharded_trainer()

    def whole_adapter(self, model: Any) -> dict[str, Any] | None:
        """The trained parameters in one piece, on the CPU; every rank must ask."""
        return whole_adapter(model)

    @contextmanager
    def other_adapter(self, model: Any, folder: Path) -> Iterator[None]:
        """As ``other_adapter``."""
        with other_adapter(model, folder / "adapter_model.safetensors"):
            yield


def sharding_arguments() -> dict[str, Any]:
    """Arguments by which the trainer shards the model (``transformers.TrainingArguments``)."""
    if not world.is_sharded():
        return {}
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "cpu_ram_efficient_loading": True,
            "state_dict_type": "FULL_STATE_DICT",
        },
        # Not the plugin's own, whose wrappers hide the adapter's names from PEFT: it saves nothing.
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }


def sharded_trainer() -> type:
    """trl's trainer with the loss that transformers' computes: trl's own needs Triton, a GPU's."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from transformers import Trainer
    from trl import SFTTrainer

    class ShardedTrainer(SFTTrainer):
        compute_loss = Trainer.compute_loss

        def create_accelerator_and_postprocess(self) -> None:
            if not torch.cuda.is_available():
                from accelerate import PartialState
                from accelerate.utils import DistributedType

                # accelerate takes FSDP for a way of GPUs alone; PyTorch does it on a CPU too.
                PartialState().distributed_type = DistributedType.MULTI_GPU
            super().create_accelerator_and_postprocess()
            if self.args.bf16 or self.args.fp16:
                # accelerate's policy would sum gradients and give the loss in 16 bit too. Layers give
                # on what they compute in: before PyTorch 2.12 nothing casts it where a layer is
                # computed again in the backward pass. The loss is 32-bit by itself.
                self.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                    param_dtype=torch.bfloat16 if self.args.bf16 else torch.float16,
                    reduce_dtype=torch.float32,
                )

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            # transformers' brings the frozen weights together too: at each checkpoint 73 s and all
            # of them in one host's memory, for 43e9 parameters on two H100.
            whole = whole_adapter(self.model)
            if world.is_first():
                self._save(output_dir or self.args.output_dir, state_dict=whole)

    return ShardedTrainer


def whole_adapter(model: Any) -> dict[str, Any]:
    """The trained parameters in one piece, on the CPU; every rank must ask, the first is told."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            whole = parameter.detach().full_tensor()  # an exchange between the ranks
            if world.is_first():
                found[name] = whole.cpu()
    return found


@contextmanager
def other_adapter(model: Any, weights: Path) -> Iterator[None]:
    """The model with another adapter's weights in the place of its own, which come back afterwards.

    A second adapter cannot be added once the weights are shared. Every rank must enter.

    Args:
        model: Its adapter has the same modules and ranks.
        weights: The other adapter's safetensors.

    Raises:
        LoraError: The other adapter is of another shape.
    """
    from safetensors.torch import load_file
    from torch.distributed.tensor import distribute_tensor

    parts, others = _adapter_parts(model), load_file(weights)
    wrong = parts.keys() ^ others.keys() or {
        name for name, part in parts.items() if part.shape != others[name].shape
    }
    if wrong:
        raise LoraError(
            f"{weights.parent}: {len(wrong)} of its tensors are not this adapter's, as {min(wrong)}"
        )
    own = {name: part.clone() for name, part in parts.items()}
    others = {
        name: distribute_tensor(others[name].to(part.dtype), part.device_mesh, part.placements)
        for name, part in parts.items()
    }
    try:
        _put_adapter(model, others)
        yield
    finally:
        _put_adapter(model, own)


def _adapter_parts(model: Any) -> dict[str, Any]:
    """This rank's parts of the adapter, in place, under the names of an adapter's file."""
    from peft import get_peft_model_state_dict

    # Asking for a state also makes FSDP give back what it gathered for the last forward pass.
    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def _put_adapter(model: Any, parts: dict[str, Any]) -> None:
    import torch

    with torch.no_grad():
        for name, part in _adapter_parts(model).items():
            part.copy_(parts[name])
