"""What a measured step says of all plans."""

from __future__ import annotations

import pytest

from llm_engineering.planning.batch_plan import gpu_plans
from llm_engineering.planning.correction import MeasuredStep, correct

ADAPTER = 4 * 83_886_080


def step(plan, more=1.0, weights=0.0):
    """What a plan's step takes, if activations and working memory are so much more than estimated."""
    e = plan.estimate
    held = e.weights + weights + ADAPTER
    peak = e.weights + weights + e.adapter + e.spare + more * (e.activations + e.working)
    return MeasuredStep(held=int(held), peak=int(peak))


@pytest.mark.parametrize("more", [0.7, 1.0, 1.4])
def test_the_measured_plan_then_says_what_was_measured_and_others_scale(work, more):
    plans = gpu_plans(work(packing=True))
    measured, other = plans[0], plans[-1]
    corrected = correct(plans, measured, step(measured, more), ADAPTER)

    assert [p.is_like(q) for p, q in zip(corrected, plans, strict=True)] == [True] * len(plans)
    assert corrected[0].estimate.training == pytest.approx(step(measured, more).peak, rel=1e-6)
    assert corrected[0].measured_bytes == step(measured, more).peak
    assert corrected[-1].measured_bytes is None
    off_by = step(measured, more).peak / measured.estimate.training - 1
    assert corrected[-1].off_by == pytest.approx(off_by, abs=1e-9)
    again = correct(corrected, corrected[0], step(corrected[0]), ADAPTER)
    assert again[0].off_by == corrected[0].off_by  # of the first one
    assert corrected[-1].estimate.activations == pytest.approx(
        more * other.estimate.activations, rel=1e-6
    )
    assert corrected[-1].estimate.evaluation == other.estimate.evaluation


def test_weights_are_what_was_held(work):
    plans = gpu_plans(work())
    corrected = correct(plans, plans[0], step(plans[0], weights=5e9), ADAPTER)
    assert corrected[3].estimate.weights == pytest.approx(plans[3].estimate.weights + 5e9, rel=1e-6)
    assert corrected[3].estimate.activations == pytest.approx(
        plans[3].estimate.activations, rel=1e-6
    )


@pytest.mark.parametrize(("more", "then"), [(0.7, 1.0), (1.4, 1.4)])
def test_where_training_takes_more_than_the_step_it_may_raise_alone(more, then, work):
    plans = gpu_plans(work())
    corrected = correct(plans, plans[0], step(plans[0], more), ADAPTER, may_lower=False)
    assert corrected[0].estimate.activations == pytest.approx(
        then * plans[0].estimate.activations, rel=1e-6
    )
    assert corrected[0].measured_bytes == step(plans[0], more).peak


def test_nonsense_does_not_let_every_plan_fit(work):
    plans = gpu_plans(work())
    nothing = MeasuredStep(held=int(plans[0].estimate.weights) + ADAPTER, peak=0)
    corrected = correct(plans, plans[0], nothing, ADAPTER)
    assert corrected[0].estimate.activations == pytest.approx(0.1 * plans[0].estimate.activations)
