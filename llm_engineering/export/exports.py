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
from llm_engineering.model.base_model import file_digest, model_folder, weight_files
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.evaluation.probe import TrainedProbe
from llm_engineering.model.recipes import LoraRecipe, ModelRecipe

ADAPTER = "adapter"
MERGED = "merged"
GGUF = "gguf"

_MOST = 0.9  # of the adapter's change; less is worth a warning

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
    quantisation = lora.model.quantisation
    adapter = Export(
        kind="adapter", path=str(folder / ADAPTER), base=str(base), quantisation=quantisation
    )
    _require_same_weights(base, lora.model)
    if not settings.merged_16bit:
        return [adapter]
    logger.info("merging the adapter into the base model's weights")
    merge(
        base,
        folder / ADAPTER,
        folder / MERGED,
        stop_ids=lora.model.stop_ids,
        trust_remote_code=lora.model.trust_remote_code,
    )
    merged = Export(
        kind="merged_16bit", path=str(folder / MERGED), base=adapter.base, adapter=adapter.path
    )
    exports = [adapter, merged]
    if (
        quantisation != "none"
    ):  # its error is no fault of the merge, which is into the original weights
        original = adapter.model_copy(update={"quantisation": "none", "is_proven": False})
        exports = [adapter, original, merged.model_copy(update={"against": 1})]
    if settings.gguf:
        path = folder / GGUF / f"{Path(model.id).name}-{settings.gguf}.gguf"
        logger.info("converting the merged model to GGUF")
        write_gguf(folder / MERGED, path, settings.gguf)
        against = exports[-1].against
        gguf = Export(
            kind="gguf",
            path=str(path),
            base=merged.path,
            adapter=adapter.path,
            against=against,
        )
        exports.append(gguf)
    return exports


def _require_same_weights(base: Path, model: ModelRecipe) -> None:
    """An adapter belongs to the weights that it was trained on, of whatever revision those are."""
    known, files = model.weight_digests, weight_files(base)
    # The Hub gives no SHA-256 of a file that is not in its large-file store.
    other = [path for path in files if file_digest(path) != known.get(path.name, file_digest(path))]
    other = other or [path for path in files if not known.keys() & {file.name for file in files}]
    if other:
        raise ExportError(
            f"model.id: {other[0]} is not the file that the run loaded (its SHA-256 is "
            f"{file_digest(other[0])}, not {known.get(other[0].name)}), and the adapter belongs to "
            f"the weights of {model.id} as they were; put those back, or start a new run"
        )


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
            "%s: proven by %s: logits within %.2g (tolerated: %g), mean KL %.2g nats (tolerated: "
            "%.2g), %d tensors compared",
            proof.export,
            proof.proven_by,
            proof.largest_difference,
            proof.tolerated_difference,
            proof.mean_kl,
            proof.tolerated_kl,
            proof.tensors,
        )
        if proof.update_kept is not None and proof.update_kept < _MOST:
            logger.warning(
                "%s: rounding to 16 bit leaves %.0f %% of what the adapter changes; the adapter "
                "alone has all of it",
                proof.export,
                100 * proof.update_kept,
            )
    return proofs


def _empty_gpu_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
