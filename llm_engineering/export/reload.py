"""Reloading exports from disk as anyone would: a process of its own, plain transformers and PEFT.

Started as ``python -m llm_engineering.export.reload REQUEST RESPONSE``, two JSON files. One export
after the other is loaded, asked, and let go of, so that one model is in memory at a time.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.configuration.model import Quantisation
from llm_engineering.export.gguf import gguf_type, read_metadata
from llm_engineering.export.stored_tensors import compare_gguf
from llm_engineering.initialisations.adapted_modules import trained_rows
from llm_engineering.model.evaluation.parity_proof import ExportKind
from llm_engineering.model.evaluation.probe import (
    Probe,
    ProbeRow,
    render,
    take_probe,
    vocabulary_digest,
)
from llm_engineering.model.evaluation.trained_tensors import adapter_names, scalings
from llm_engineering.model_class import model_class

_ROOM = 1.25  # memory that a model needs, by the size of its weights
_NF4 = 0.35  # size of NF4 weights by that of 16-bit ones, embeddings left as they are


class Export(BaseModel):
    """One export on disk, and how it is loaded."""

    kind: ExportKind
    path: str = Field(description="Its folder, or file.")
    base: str | None = Field(
        None,
        description="Folder of the base model of an adapter or a merged model, or of the model that "
        "a GGUF was made of.",
    )
    adapter: str | None = Field(
        None, description="Folder of the adapter in a merged model, or in a GGUF of one."
    )
    quantisation: Quantisation = Field("none", description="As it was trained on.")
    against: int | None = Field(
        None, description="Position of the export that it is compared with; None: the live model."
    )
    is_proven: bool = Field(True, description="False: others are only compared with it.")


class ReloadRequest(BaseModel):
    """What to load, and what to ask of it."""

    exports: list[Export]
    rows: list[ProbeRow]
    live: Probe
    dtype: str = Field(description="Type that the run computed in.")
    stop_ids: list[int]
    trust_remote_code: bool


class Reloaded(BaseModel):
    """What an export says of itself."""

    probe: Probe | None = None
    rendered_ids: list[list[int]] = Field([], description="Each prompt, by its chat template.")
    chat_template: str | None = Field(None, description="The text of its chat template.")
    vocabulary: str | None = Field(None, description="SHA-256 of its tokenizer's vocabulary.")
    stop_ids: list[int] = Field([], description="Tokens at which its configuration stops.")
    rope: dict[str, Any] = Field({}, description="The positions that it was loaded with.")
    scaling: dict[str, float] = Field({}, description="Of each module of an adapter, by PEFT.")
    adapter_names: list[str] = Field([], description="Tensors that PEFT computes an adapter with.")
    token_rows: dict[str, list[int]] = Field(
        {}, description="Rows of each module that PEFT puts an adapter's trained tokens in."
    )
    tensors: int = Field(0, description="A GGUF's tensors that were compared with its model's.")
    tensor_fault: str | None = Field(None, description="What is wrong with a GGUF's tensors.")
    error: str | None = Field(None, description="Why it could not be loaded.")


class ReloadResponse(BaseModel):
    """One answer an export, in their order."""

    exports: list[Reloaded]


def main(request_file: str, response_file: str) -> None:
    """Answer a request."""
    # Where it is installed, transformers imports it for a way of decoding that is not used here,
    # which takes as long as all the rest of this process.
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    request = ReloadRequest.model_validate_json(Path(request_file).read_bytes())
    found: list[Reloaded] = []
    for export in request.exports:
        against = request.live if export.against is None else found[export.against].probe
        if not export.is_proven:  # what it is asked is its own, as the live model's was
            against = None
        try:
            found.append(_reload(export, request, against))
        except Exception as error:  # whatever a library makes of a broken file
            reason = " ".join(str(error).split())[:500]
            found.append(Reloaded(error=f"{type(error).__name__}: {reason}"))
    text = ReloadResponse(exports=found).model_dump_json()
    Path(response_file).write_text(text, encoding="utf-8")


def _reload(export: Export, request: ReloadRequest, against: Probe | None) -> Reloaded:
    import gc

    import torch
    from transformers import AutoTokenizer

    # transformers builds a GGUF's tokenizer only nearly as it was: the merged model's reads for it,
    # and what the file itself says of tokens and template must be the same.
    folder = export.base if export.kind == "gguf" else export.path
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=request.trust_remote_code)
    rendered = [
        render(tokenizer, row.messages, row.tools, row.template_inputs) if row.messages else []
        for row in request.rows
    ]
    model = load_export(export, dtype=request.dtype, trust_remote_code=request.trust_remote_code)
    stated = getattr(model.generation_config, "eos_token_id", None)
    stops = set(stated if isinstance(stated, list) else [stated])
    if export.kind == "adapter":  # what its own says, which is not the base model's
        stops |= {tokenizer.eos_token_id, *stated_stops(Path(export.path))}
    if export.kind == "gguf":
        stops = set(_gguf_stops(Path(export.path), tokenizer))
    found = Reloaded(
        rendered_ids=rendered,
        chat_template=tokenizer.chat_template,
        vocabulary=vocabulary_digest(tokenizer),
        stop_ids=sorted(stops - {None}),
        rope=getattr(model.config, "rope_parameters", None) or {},
    )
    if export.kind == "adapter":
        found.scaling, found.adapter_names = scalings(model), adapter_names(model)
        found.token_rows = trained_rows(model)
    if export.kind == "gguf" and export.base:
        kind = gguf_type(export.path)
        compared = compare_gguf(model, Path(export.base), kind, _token_rows(export))
        found.tensors, found.tensor_fault = compared.tensors, compared.fault
    found.probe = take_probe(
        model,
        request.rows,
        pad_id=tokenizer.pad_token_id,
        stop_ids=request.stop_ids,
        same_as=against,
    )
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def stated_stops(adapter: Path) -> list[int]:
    """Tokens at which an adapter's own ``generation_config.json`` stops; it may have none."""
    path = adapter / "generation_config.json"
    if not path.is_file():
        return []
    return list(json.loads(path.read_text(encoding="utf-8"))["eos_token_id"])


def _gguf_stops(path: Path, tokenizer: Any) -> list[int]:
    """The end tokens of a GGUF file, whose template and vocabulary are the tokenizer's."""
    template, ends, tokens = read_metadata(path)
    if template != tokenizer.chat_template:
        raise ValueError("its chat template is not the one of training")
    different = [t for t, i in tokenizer.get_vocab().items() if i >= len(tokens) or tokens[i] != t]
    if different:
        raise ValueError(f"{len(different)} tokens of its vocabulary differ, as {different[0]!r}")
    return ends


def _token_rows(export: Export) -> dict[str, list[int]]:
    """The rows that an adapter's configuration says to be trained, by the name of their tensor."""
    if export.adapter is None:
        return {}
    text = Path(export.adapter, "adapter_config.json").read_text(encoding="utf-8")
    rows = json.loads(text).get("trainable_token_indices") or {}
    return {f"{name}.weight": ids for name, ids in rows.items()}


def load_export(export: Export, *, dtype: str, trust_remote_code: bool) -> Any:
    """An export as plain transformers and PEFT load it, on a GPU with room for it or the CPU.

    Raises:
        ValueError: Tensors are missing, or of another shape.
    """
    import torch
    from transformers import AutoConfig

    from llm_engineering.model.fp8 import quantise_projections
    from llm_engineering.model.stored_quantisation import dequantising

    path = Path(export.path)
    computed_in = getattr(torch, dtype)
    options: dict[str, Any] = {"dtype": computed_in, "trust_remote_code": trust_remote_code}
    source = Path(export.base) if export.kind == "adapter" and export.base else path
    if export.kind == "gguf":
        source, options["gguf_file"] = path.parent, path.name
    if export.kind != "gguf":
        options |= dequantising(source)
    growth = 2.0 if "quantization_config" in options else 1.0
    if export.quantisation == "nf4":
        growth = _NF4
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(  # as unsloth loads it
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=computed_in,
        )
    weights = [path] if export.kind == "gguf" else source.glob("*.safetensors")
    options["device_map"] = _device_map(weights, growth)
    config = AutoConfig.from_pretrained(  # a GGUF's folder has none of its own
        source if export.kind != "gguf" else export.base,
        trust_remote_code=trust_remote_code,
    )
    loader = model_class(config)
    model, info = loader.from_pretrained(source, output_loading_info=True, **options)
    wrong = [*info["missing_keys"], *info["mismatched_keys"]]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are missing or of another shape, as {min(wrong)}")
    if export.quantisation == "fp8":
        quantise_projections(model)
    if export.kind != "adapter":
        return model
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        return PeftModel.from_pretrained(model, path)


def _device_map(weights: Iterable[Path], growth: float) -> Any:
    """Where a model's layers go, by what is free of each GPU, and its files' size times ``growth``."""
    import torch

    size = sum(file.stat().st_size for file in weights) * growth
    cards = range(torch.cuda.device_count())
    return placement(size, [torch.cuda.mem_get_info(card)[0] for card in cards])


def placement(size: float, free: Sequence[int]) -> Any:
    """transformers' ``device_map``: one GPU, else all of them, else the CPU, which takes longer.

    Args:
        size: Bytes of the weights.
        free: Bytes free of each GPU.
    """
    need = size * _ROOM
    for card, room in enumerate(free):
        if need < room:
            return {"": f"cuda:{card}"}
    return "balanced" if need < sum(free) else {"": "cpu"}


if __name__ == "__main__":
    main(*sys.argv[1:])
