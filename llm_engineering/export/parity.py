"""The parity proof: an export, read back from disk by another process, says what the trained model said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from llm_engineering.errors import ExportError
from llm_engineering.export.reload import (
    Export,
    Reloaded,
    ReloadRequest,
    ReloadResponse,
)
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.evaluation.probe import (
    Probe,
    TrainedProbe,
    largest_difference,
    mean_kl,
    positions,
)
from llm_engineering.model.recipes import ModelRecipe

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
}
"""By what an export is stored and computed in. Some ten times the KL, and four times the logit, that
rounding alone was seen to make between base model + adapter and the same merged, with a trained
adapter of SmolLM2-135M-Instruct: 0 and 0 in float32 (unsloth against plain PEFT); 1.6e-5 nats and
0.07 in float16; 2.0e-4 and 0.17 with the merged weights rounded to 16 bit; 1.7e-3 and 1.0 when
computed in bfloat16; 7.5e-4 and 0.51 as GGUF's q8_0. Without the adapter it was 0.88 nats and 25."""


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
        ExportError: One differs by more than its numbers' precision, answers otherwise, renders a
            prompt otherwise, does not stop where the run's answers do, or cannot be loaded.
    """
    found = reload(exports, trained, model)
    wrong = [
        f"{export.kind}: {reason}"
        for export, one in zip(exports, found, strict=True)
        if (reason := _difference(export, one, found, trained, model))
    ]
    if wrong:
        raise ExportError(
            "an export is not what was trained, so nothing was saved:\n" + "\n".join(wrong)
        )
    return [
        _proof(export, one, found, trained, model)
        for export, one in zip(exports, found, strict=True)
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
                f"{last}; nothing was saved. evaluate.parity_rows: 0 saves without a proof"
            )
        return ReloadResponse.model_validate_json(answered.read_bytes()).exports


def precision(export: Export, model: ModelRecipe) -> str:
    """The key of ``TOLERANCES`` that an export is judged by."""
    if export.path.endswith("q8_0.gguf"):
        return "8-bit weights"
    if export.kind == "adapter" or model.dtype == "bfloat16":
        return model.dtype
    return "16-bit weights"


def _difference(
    export: Export,
    found: Reloaded,
    all_found: Sequence[Reloaded],
    trained: TrainedProbe,
    model: ModelRecipe,
) -> str | None:
    """What is wrong with an export, in a sentence; None: nothing."""
    if found.error is not None or found.probe is None:
        return f"cannot be loaded: {found.error}"
    for row, rendered in zip(trained.rows, found.rendered_ids, strict=True):
        if rendered != row.rendered_ids:
            return (
                f"its chat template renders {row.origin} as {len(rendered)} tokens that are not the "
                f"{len(row.rendered_ids)} of training"
            )
    lacking = sorted(set(model.stop_ids) - set(found.stop_ids))
    if lacking:
        return (
            f"its generation configuration stops at {found.stop_ids or 'no token'}, not at "
            f"{lacking}, which ends an answer"
        )
    if not export.is_proven:
        return None
    other = _other(export, all_found, trained)
    if other is None:
        return "what it is held against could not be loaded"
    allowed = TOLERANCES[precision(export, model)]
    difference, kl = largest_difference(other, found.probe), mean_kl(other, found.probe)
    if not (difference <= allowed.logit and kl <= allowed.kl):
        effect = "" if trained.effect is None else f"; without the adapter: {trained.effect:.3g}"
        return (
            f"its logits differ by up to {difference:.3g} (tolerated: {allowed.logit:g}) and a mean "
            f"KL of {kl:.3g} nats (tolerated: {allowed.kl:g}{effect})"
        )
    for index, (ours, theirs) in enumerate(zip(other.greedy, found.probe.greedy, strict=True)):
        gap = _gap(ours, theirs, other, index)
        if gap > 2 * allowed.logit:
            return (
                f"its greedy answer to {trained.rows[index].origin} is another, by a token whose "
                f"logit was {gap:.3g} below the best"
            )
    return None


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
    all_found: Sequence[Reloaded],
    trained: TrainedProbe,
    model: ModelRecipe,
) -> ParityProof:
    other = _other(export, all_found, trained)
    if other is None or found.probe is None:
        raise ExportError(f"{export.kind}: was not loaded")
    precise = precision(export, model)
    allowed = TOLERANCES[precise]
    return ParityProof(
        export=export.kind,
        against=_against(export, model),
        precision=precise,
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
    )


def _against(export: Export, model: ModelRecipe) -> str:
    if export.against is not None:
        return "the adapter on the original 16-bit weights"
    quantised = ", its base model in NF4" if model.quantisation == "nf4" else ""
    return f"the trained model in memory{quantised}"
