"""Making what ``export`` asks for in a run's folder, and the proof of all of it."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import ExportError
from llm_engineering.export.gguf import write_gguf
from llm_engineering.export.merge import merge
from llm_engineering.export.parity import prove
from llm_engineering.export.reload import Export
from llm_engineering.model import live
from llm_engineering.model.base_model import is_hub_model, model_folder, weight_digests
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.evaluation.probe import TrainedProbe
from llm_engineering.model.recipes import LoraRecipe

ADAPTER = "adapter"
MERGED = "merged"
GGUF = "gguf"

logger = logging.getLogger(__name__)


def make_exports(settings: ExportSettings, lora: LoraRecipe, folder: Path) -> list[Export]:
    """Write the configured exports beside ``folder/adapter``, which is there already.

    Returns:
        What is to be proven; the adapter always is.

    Raises:
        ExportError: The adapter cannot be merged, or the base model's files have changed.
    """
    model = lora.model.settings
    base = model_folder(model, weights=True)
    quantised = lora.model.quantisation == "nf4"
    adapter = Export(
        kind="adapter", path=str(folder / ADAPTER), base=str(base), quantised=quantised
    )
    if not settings.merged_16bit:
        return [adapter]
    # A snapshot of the Hub is named by its commit, and so cannot change.
    if not is_hub_model(model) and weight_digests(model) != lora.model.weight_digests:
        raise ExportError(
            f"export.merged_16bit: the weight files of {model.id} have changed since the run "
            "loaded them; put the old ones back, or start a new run"
        )
    logger.info("merging the adapter into the base model's weights")
    merge(base, folder / ADAPTER, folder / MERGED, stop_ids=lora.model.stop_ids)
    merged = Export(kind="merged_16bit", path=str(folder / MERGED))
    exports = [adapter, merged]
    if quantised:  # NF4's own error is no fault of the merge, which is into the original weights
        original = adapter.model_copy(update={"quantised": False, "is_proven": False})
        exports = [adapter, original, merged.model_copy(update={"against": 1})]
    if settings.gguf:
        path = folder / GGUF / f"{Path(model.id).name}-{settings.gguf}.gguf"
        logger.info("converting the merged model to GGUF")
        write_gguf(folder / MERGED, path, settings.gguf)
        against = exports[-1].against
        exports.append(Export(kind="gguf", path=str(path), base=merged.path, against=against))
    return exports


def prove_exports(
    exports: list[Export], trained: TrainedProbe, lora: LoraRecipe
) -> list[ParityProof]:
    """Let go of the live model, whose memory the proof needs, and prove the exports.

    Raises:
        ExportError: One is not what was trained.
    """
    live.release()
    gc.collect()
    _empty_gpu_cache()
    logger.info("reading the exports back in a process of its own")
    proofs = prove(exports, trained, lora.model)
    for proof in proofs:
        logger.info(
            "%s: logits within %.2g (tolerated: %g), mean KL %.2g nats (tolerated: %g)",
            proof.export,
            proof.largest_difference,
            proof.tolerated_difference,
            proof.mean_kl,
            proof.tolerated_kl,
        )
    return proofs


def _empty_gpu_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
