"""The checks of the promotion gate, by name; ``registry.checks`` says which of them count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_engineering.configuration.registry import BetterAt, CheckName, RegistrySettings
from llm_engineering.data.summary import DatasetSummary
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.registry.decision import Check
from llm_engineering.registry.scores import BASE, compare_scores
from llm_engineering.scoring.answers import Answers
from llm_engineering.scoring.bootstrap import paired_bootstrap, paired_difference

FEWEST_ROWS = 8
"""With fewer held-out rows, resampling says nothing about noise."""


@dataclass(frozen=True)
class Production:
    """The version to beat, as far as the gate looks at it."""

    name: str
    row_losses: list[float] | None
    """Its summed loss of each of the candidate's held-out rows, in nats; None: not comparable."""
    why_not: str = ""
    answers: Answers | None = None
    """Its answers to held-out rows, as it was saved with them; None: it has none."""


@dataclass(frozen=True)
class Candidate:
    """A saved version, and what it is held against."""

    summary: DatasetSummary
    adapter: AdapterFolder
    record: TrainingRecord
    evaluation: Evaluation
    rolled_back: dict[str, str]
    """Digests of adapters that were rolled back, and the versions that they were."""
    production: Production | None
    parity: list[ParityProof]
    """Of its exports."""


def run_checks(candidate: Candidate, settings: RegistrySettings) -> list[Check]:
    """Run the configured checks, in their order."""
    outcomes = [
        (f"better_at {one.better_at}", *_better_at(candidate, settings, one.better_at))
        if isinstance(one, BetterAt)
        else (one, *CHECKS[one](candidate, settings))
        for one in settings.checks
    ]
    return [Check(name=name, passed=passed, detail=text) for name, passed, text in outcomes]


Outcome = tuple[bool, str]


def _finite_losses(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    record = candidate.record
    losses = [(point.step, point.loss) for point in record.points]
    measured = [*record.held_out, *record.validation]
    losses += [(point.step, point.metrics.loss) for point in measured]
    for step, loss in losses:
        if not math.isfinite(loss):
            return False, f"the loss is {loss} at step {step}"
    return True, f"all {len(losses)} losses are finite"


def _trained_end_of_turn(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    audit = candidate.summary.train
    share = audit.stop_tokens / audit.rows
    text = f"{audit.stop_tokens} end-of-turn tokens are trained in {audit.rows} rows"
    return share > 0.5, text + ("" if share > 0.5 else ": most answers were cut before they ended")


def _intact_adapter(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    from safetensors import deserialize

    path = candidate.adapter.folder / "adapter_model.safetensors"
    if file_digest(path) != candidate.adapter.digest:
        return False, "the stored file is not the one that training wrote (its SHA-256 differs)"
    changed = False
    # Without PyTorch: the gate also stands on hosts that only launch jobs.
    tensors = deserialize(path.read_bytes())
    for name, tensor in tensors:
        is_finite, is_zero = _finite_and_zero(tensor["dtype"], tensor["data"])
        if not is_finite:
            return False, f"{name} holds a value that is not finite"
        # LoRA's B starts at zero (arXiv 2106.09685, section 4.1): all zero is untrained.
        changed |= "lora_B" in name and not is_zero
    if not changed:
        return False, "every lora_B is zero: the adapter changes nothing"
    return True, f"{len(tensors)} tensors, all finite, with the SHA-256 that training gave"


def _finite_and_zero(dtype: str, data: bytes) -> tuple[bool, bool]:
    """Whether all values of a stored tensor are finite, and whether all are zero."""
    import numpy

    if dtype == "BF16":  # unknown to numpy: the upper half of a 32-bit float
        values = (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = numpy.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype])
    return bool(numpy.isfinite(values).all()), not bool(values.any())


def _not_rolled_back(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    same = candidate.rolled_back.get(candidate.adapter.digest)
    if same is not None:
        return False, f"this very adapter was rolled back, as {same}"
    return True, "this adapter was never rolled back"


def _parity(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    if not candidate.parity:
        return False, "no export was held against the trained model"
    passed = all(proof.passed for proof in candidate.parity)
    return passed, "; ".join(
        f"{proof.export}: logits within {proof.largest_difference:.2g} (tolerated: "
        f"{proof.tolerated_difference:g}), mean KL {proof.mean_kl:.2g} nats (tolerated: "
        f"{proof.tolerated_kl:.3g}), proven by {proof.proven_by}"
        for proof in candidate.parity
    )


def _forgetting(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    generic = candidate.evaluation.generic
    if generic is None:
        return False, "the loss on general text was not measured"
    most = settings.most_forgotten_text
    passed, told = (
        generic.change <= most,
        [
            f"loss on {generic.after.rows} passages of general text {generic.before.loss:.3f} -> "
            f"{generic.after.loss:.3f} ({generic.change:+.1%}; up to {most:+.1%} is let pass)"
        ],
    )
    for task, share in settings.most_forgotten_tasks.items():
        found = next((one for one in candidate.evaluation.benchmarks if one.task == task), None)
        if found is None:
            passed = False
            measured = ", ".join(sorted({one.task for one in candidate.evaluation.benchmarks}))
            told.append(f"{task} was not measured (measured: {measured or 'none'})")
            continue
        passed &= found.lost <= share
        told.append(
            f"{task} {found.metric} {found.before:.3f} -> {found.after:.3f} ({found.lost:.1%} lost; up "
            f"to {share:.1%} is let pass)"
        )
    return passed, "; ".join(told)


def _better_than_base(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    before, after = candidate.evaluation.before, candidate.evaluation.after
    return _better(
        "the base model", before.row_losses, after.row_losses, settings.confidence, least=0.0
    )


def _better_than_production(candidate: Candidate, settings: RegistrySettings) -> Outcome:
    production = candidate.production
    if production is None:
        return True, "there is no production version yet"
    if production.row_losses is None:
        return False, f"cannot be compared with {production.name}: {production.why_not}"
    return _better(
        production.name,
        production.row_losses,
        candidate.evaluation.after.row_losses,
        settings.confidence,
        least=settings.min_improvement,
    )


def _better(
    other: str, theirs: Sequence[float], ours: Sequence[float], confidence: float, *, least: float
) -> Outcome:
    if len(ours) < FEWEST_ROWS:
        return False, (
            f"{len(ours)} held-out rows are too few to tell an improvement from noise; hold out "
            f"at least {FEWEST_ROWS}"
        )
    found = paired_bootstrap(theirs, ours, confidence=confidence)
    passed = found.at_least > least
    course = "lower" if found.share >= 0 else "higher"
    wanted = f", {least:.2%} is asked for" if least else ""
    return passed, (
        f"held-out loss {abs(found.share):.2%} {course} than that of {other}; at {confidence:.0%} "
        f"confidence at least {found.at_least:+.2%} better{wanted} ({len(ours)} rows)"
    )


def _better_at(candidate: Candidate, settings: RegistrySettings, name: str) -> Outcome:
    """By a score: better than production's answers to the same rows, else than the base model's."""
    answers, production = candidate.evaluation.answers, candidate.production
    if answers is None or answers.score(name) is None:
        return False, f"{name} was not measured: this run's answers have no such score"
    pairs = compare_scores(
        name,
        answers,
        None if production is None else production.answers,
        None if production is None else production.name,
    )
    if len(pairs.ours) < FEWEST_ROWS:
        return False, (
            f"{len(pairs.ours)} rows with a score of {name} are too few to tell an improvement from "
            f"noise; raise evaluate.answers.rows, and hold out at least {FEWEST_ROWS} rows"
        )
    found = paired_difference(pairs.theirs, pairs.ours, confidence=settings.confidence)
    why = f" ({pairs.why_base})" if pairs.other == BASE and pairs.why_base else ""
    return found.at_least > 0, (
        f"{name} {found.candidate:.3f}, {found.mean:+.3f} against {found.to_beat:.3f} of "
        f"{pairs.other}{why}; at {settings.confidence:.0%} confidence at least {found.at_least:+.3f} "
        f"({found.rows} rows)"
    )


CHECKS: dict[CheckName, Callable[[Candidate, RegistrySettings], Outcome]] = {
    "finite_losses": _finite_losses,
    "trained_end_of_turn": _trained_end_of_turn,
    "intact_adapter": _intact_adapter,
    "not_rolled_back": _not_rolled_back,
    "parity": _parity,
    "forgetting": _forgetting,
    "better_than_base": _better_than_base,
    "better_than_production": _better_than_production,
}
