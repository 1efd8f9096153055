"""The parity proof: an export, read back from disk by another process, says what the trained model said.

Two comparisons, which fail on their own. Outputs: on held-out rows the logits may differ by what the
numbers' precision explains, and by no more than a quarter of what the adapter changes. Stored tensors
(``stored_tensors``): the files hold what was trained. Where the adapter's whole effect is no larger
than what rounding may make, outputs cannot tell it from none, and the tensors alone are the proof.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from llm_engineering.errors import ExportError, UnprovenError
from llm_engineering.export.gguf import gguf_type
from llm_engineering.export.reload import (
    Export,
    Reloaded,
    ReloadRequest,
    ReloadResponse,
)
from llm_engineering.export.stored_tensors import Finding, compare_adapter, compare_merged
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.evaluation.probe import (
    Probe,
    TrainedProbe,
    largest_difference,
    mean_kl,
    positions,
)
from llm_engineering.model.recipes import ModelRecipe
from llm_engineering.model.rope_scaling import told

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Tolerance:
    """What an export may differ by, for its numbers' sake alone."""

    logit: float
    """Largest difference of a logit."""
    kl: float
    """Mean KL a position, in nats."""


TOLERANCES = {
    "float32": Tolerance(logit=0.01, kl=1e-5),
    "float16": Tolerance(logit=0.5, kl=2e-4),
    "16-bit weights": Tolerance(logit=1.0, kl=2e-3),
    "8-bit weights": Tolerance(logit=4.0, kl=0.015),
    "bfloat16": Tolerance(logit=4.0, kl=0.015),
    "FP8 weights": Tolerance(logit=8.0, kl=0.06),
    "5-bit weights": Tolerance(logit=12.0, kl=0.15),
    "4-bit weights": Tolerance(logit=12.0, kl=0.15),
}
"""By what an export is stored and computed in. Some ten times the KL, and four times the logit, that
rounding alone was seen to make between base model + adapter and the same merged, with a trained
adapter of SmolLM2-135M-Instruct: 0 and 0 in float32 (unsloth against plain PEFT); 1.6e-5 nats and
0.07 in float16; 2.0e-4 and 0.17 with the merged weights rounded to 16 bit; 1.7e-3 and 1.0 when
computed in bfloat16; 7.5e-4 and 0.51 as GGUF's q8_0. Without the adapter it was 0.88 nats and 25. On a
GPU with weights in FP8, whose inputs are rounded to 8 bit too and not alike in both, 1.8e-2 and 2.3:
three times that is tolerated, a fifteenth of what the adapter does. 3.2e-2 and 3.7 as q4_k_m, 7.5e-2 and
9.0 as q5_k_m, of whose narrow matrices llama.cpp makes other types than the names say: twice the larger."""

_NARROW = {"q8_0": "8-bit weights", "q5_k_m": "5-bit weights", "q4_k_m": "4-bit weights"}
"""By the type of a GGUF."""

_SEEN_EFFECT = 0.88
"""Nats. An adapter that changes more moves logits further, and rounding them moves them in proportion:
5.6e-2 nats were seen of an effect of 5.8 (Gemma-3-4b's shape, random weights, bfloat16)."""


_OF_EFFECT = 0.25
"""Share of the adapter's own effect that an export may differ by."""


def prove(
    exports: Sequence[Export], trained: TrainedProbe, model: ModelRecipe
) -> list[ParityProof]:
    """Reload exports in a fresh process and hold each against what it was made from.

    The live model should be released before: the process loads one model at a time.

    Args:
        exports: What to prove.
        trained: The trained model's own probe.
        model: Says what type the run computed in.

    Raises:
        UnprovenError: One differs by more than its numbers' precision or than a quarter of the
            adapter's effect, holds other tensors, answers otherwise, has another tokenizer or chat
            template, does not stop where the run's answers do, or cannot be loaded.
        ExportError: The process that reads them back ended without an answer.
    """
    found = reload(exports, trained, model)
    stored = [
        _stored(export, one, trained, model) for export, one in zip(exports, found, strict=True)
    ]
    wrong = [
        (export.kind, reason)
        for export, one, tensors in zip(exports, found, stored, strict=True)
        if (reason := _difference(export, one, tensors, found, trained, model))
    ]
    if wrong:
        raise UnprovenError(
            "an export is not what was trained:\n"
            + "\n".join(f"{kind}: {reason}" for kind, reason in wrong),
            kinds=[kind for kind, _ in wrong],
        )
    return [
        _proof(export, one, tensors, found, trained, model)
        for export, one, tensors in zip(exports, found, stored, strict=True)
        if export.is_proven
    ]


def reload(exports: Sequence[Export], trained: TrainedProbe, model: ModelRecipe) -> list[Reloaded]:
    """Load exports in a fresh process and let each answer the trained's rows.

    Raises:
        ExportError: The process ended without an answer.
    """
    request = ReloadRequest(
        exports=list(exports),
        rows=trained.rows,
        live=trained.probe,
        dtype=model.dtype,
        stop_ids=list(model.stop_ids),
        trust_remote_code=model.trust_remote_code,
    )
    with TemporaryDirectory() as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "response.json")
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "llm_engineering.export.reload", str(asked), str(answered)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0 or not answered.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(
                f"the process that reads the exports back ended with status {done.returncode}: "
                f"{last}; evaluate.parity_rows: 0 saves without a proof (take parity off "
                "registry.checks then)"
            )
        return ReloadResponse.model_validate_json(answered.read_bytes()).exports


def precision(export: Export, model: ModelRecipe) -> str:
    """The key of ``TOLERANCES`` that an export is judged by."""
    if export.kind == "gguf" and (kind := gguf_type(export.path)) in _NARROW:
        return _NARROW[kind]
    if export.kind == "adapter" and export.quantisation == "fp8":
        return "FP8 weights"
    if export.kind == "adapter" or model.dtype == "bfloat16":
        return model.dtype
    return "16-bit weights"


def tolerance(export: Export, trained: TrainedProbe, model: ModelRecipe) -> tuple[Tolerance, bool]:
    """What an export may differ by, and whether that tells it from another adapter.

    ``TOLERANCES``, its KL in proportion to an effect larger than those were seen at, and of the KL no
    more than a quarter of the adapter's effect; unless that effect is within ``TOLERANCES`` itself,
    where outputs tell only gross faults.
    """
    allowed = TOLERANCES[precision(export, model)]
    if trained.effect is None or trained.effect <= allowed.kl:
        return allowed, False
    rounding = allowed.kl * max(1.0, trained.effect / _SEEN_EFFECT)
    return replace(allowed, kl=min(rounding, _OF_EFFECT * trained.effect)), True


def _stored(
    export: Export, found: Reloaded, trained: TrainedProbe, model: ModelRecipe
) -> Finding | None:
    """The comparison of an export's stored tensors; None: there is nothing to compare with."""
    if export.kind == "gguf":
        return Finding(found.tensors, found.tensor_fault) if export.base else None
    if trained.tensors is None or found.probe is None:
        return None
    if export.kind == "adapter":
        return compare_adapter(
            Path(export.path),
            trained.tensors,
            found.scaling,
            found.adapter_names,
            found.token_rows,
        )
    if export.base is None or export.adapter is None:
        return None
    return compare_merged(
        Path(export.base),
        Path(export.adapter),
        Path(export.path),
        trained.tensors,
        trust_remote_code=model.trust_remote_code,
    )


def _difference(
    export: Export,
    found: Reloaded,
    stored: Finding | None,
    all_found: Sequence[Reloaded],
    trained: TrainedProbe,
    model: ModelRecipe,
) -> str | None:
    """What is wrong with an export, on one line; None: nothing."""
    if found.error is not None or found.probe is None:
        return f"cannot be loaded: {found.error}"
    wrong = [*_text_faults(found, trained, model), *_position_fault(found, model)]
    if stored is not None and stored.fault:
        wrong.append(stored.fault)
    if export.is_proven:
        other = _other(export, all_found, trained)
        if other is None:
            wrong.append("what it is held against could not be loaded")
        else:
            wrong += _output_faults(export, found.probe, other, trained, model)
        _, told = tolerance(export, trained, model)
        if not told and stored is None:
            wrong.append(
                "outputs cannot prove it, since the adapter's effect "
                f"({_effect(trained)}) is no larger than what rounding may make, and the trained "
                "tensors were not recorded; run again with --no-cache"
            )
    return "; ".join(wrong) or None


def _text_faults(found: Reloaded, trained: TrainedProbe, model: ModelRecipe) -> Iterator[str]:
    """Tokenizer, chat template and end of turn, which weights do not show."""
    if trained.vocabulary is not None and found.vocabulary != trained.vocabulary:
        yield "its tokenizer has another vocabulary than that of training"
    different = [
        (row.origin, len(rendered), len(row.rendered_ids))
        for row, rendered in zip(trained.rows, found.rendered_ids, strict=True)
        if rendered != row.rendered_ids
    ]
    if different:
        origin, theirs, ours = different[0]
        yield (
            f"its chat template renders {origin} as {theirs} tokens that are not the {ours} of "
            "training"
        )
    elif found.chat_template != model.chat_template:
        yield "its chat template is another text than that of training"
    lacking = sorted(set(model.stop_ids) - set(found.stop_ids))
    if lacking:
        yield (
            f"its generation configuration stops at {found.stop_ids or 'no token'}, not at "
            f"{lacking}, which ends an answer"
        )


def _position_fault(found: Reloaded, model: ModelRecipe) -> Iterator[str]:
    """Positions other than trained, which short rows may not show."""
    asked = told(model.rope_scaling)
    stated = {name: found.rope.get(name) for name in asked}
    if stated != asked:
        yield f"its positions are {stated}, not {asked} as in training (model.rope_scaling)"


def _output_faults(
    export: Export, found: Probe, other: Probe, trained: TrainedProbe, model: ModelRecipe
) -> Iterator[str]:
    """Logits that differ by too much, or greedy answers that they do not explain."""
    allowed, _ = tolerance(export, trained, model)
    difference, kl = largest_difference(other, found), mean_kl(other, found)
    if not (difference <= allowed.logit and kl <= allowed.kl):
        yield (
            f"its logits differ by up to {difference:.3g} (tolerated: {allowed.logit:g}) and a mean "
            f"KL of {kl:.3g} nats (tolerated: {allowed.kl:.3g}; without the adapter: "
            f"{_effect(trained)})"
        )
        return
    # Two logits that each move by d can change places if they were 2 d apart; generation, with its
    # cache and padding, computes a little otherwise than the pass that the logits are of.
    nearest = 2 * max(difference, allowed.logit / 4)
    for index, (ours, theirs) in enumerate(zip(other.greedy, found.greedy, strict=True)):
        gap = _gap(ours, theirs, other, index)
        if gap > nearest:
            yield (
                f"its greedy answer to {trained.rows[index].origin} is another, by a token whose "
                f"logit was {gap:.3g} below the best, where {nearest:.3g} could be rounding"
            )
            return


def _effect(trained: TrainedProbe) -> str:
    return "not known" if trained.effect is None else f"{trained.effect:.3g}"


def _other(export: Export, found: Sequence[Reloaded], trained: TrainedProbe) -> Probe | None:
    return trained.probe if export.against is None else found[export.against].probe


def _gap(ours: list[int], theirs: list[int], probe: Probe, index: int) -> float:
    """By how much the other's first different token was worse in our own logits; 0: none is."""
    for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            logits = probe.answers[index]
            known = dict(zip(logits.ids[place], logits.values[place], strict=True))
            best = known.get(one, max(known.values()))
            return best - known.get(other, min(known.values()))
    return 0.0


def _proof(
    export: Export,
    found: Reloaded,
    stored: Finding | None,
    all_found: Sequence[Reloaded],
    trained: TrainedProbe,
    model: ModelRecipe,
) -> ParityProof:
    other = _other(export, all_found, trained)
    if other is None or found.probe is None:
        raise ExportError(f"{export.kind}: was not loaded")
    allowed, told = tolerance(export, trained, model)
    return ParityProof(
        export=export.kind,
        against=_against(export, model),
        precision=precision(export, model),
        rows=len(trained.rows),
        positions=positions(other),
        largest_difference=largest_difference(other, found.probe),
        mean_kl=mean_kl(other, found.probe),
        tolerated_difference=allowed.logit,
        tolerated_kl=allowed.kl,
        same_answers=sum(
            one == two for one, two in zip(other.greedy, found.probe.greedy, strict=True)
        ),
        effect=trained.effect,
        proven_by="outputs"
        if stored is None
        else ("outputs and stored tensors" if told else "stored tensors"),
        tensors=stored.tensors if stored else 0,
        update_kept=stored.update_kept if stored else None,
    )


def _against(export: Export, model: ModelRecipe) -> str:
    if export.against is not None:
        return "the adapter on the original 16-bit weights"
    quantised = f", its base model in {model.quantisation.upper()}"
    quantised = quantised if model.quantisation != "none" else ""
    return f"the trained model in memory{quantised}"
