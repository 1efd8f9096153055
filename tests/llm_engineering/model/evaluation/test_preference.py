"""Losses and rewards of preferences, against the formulas worked by hand."""

import math

import datasets
import pytest

from llm_engineering.model.evaluation import preference
from llm_engineering.model.evaluation.held_out import HeldOutMetrics

# Log-probabilities of two pairs: the policy's, and the reference model's.
POLICY = {"chosen": [-10.0, -8.0], "rejected": [-12.0, -4.0]}
REFERENCE = {"chosen": [-11.0, -8.0], "rejected": [-11.0, -6.0]}
TOKENS = {"chosen": [5, 4], "rejected": [4, 2]}
BETA = 0.5


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def measure(monkeypatch):
    """Measure a model whose answers have these log-probabilities."""

    def given(model, rows, **more):
        name = "rejected" if rows[0]["labels"][-1] == 2 else "chosen"
        losses = [-value for value in POLICY[name]]
        return HeldOutMetrics(
            loss=1.0, token_accuracy=0.5, tokens=9, rows=2, row_losses=losses,
            row_tokens=TOKENS[name],
        )  # fmt: skip

    monkeypatch.setattr(preference, "held_out_metrics", given)
    rows = datasets.Dataset.from_dict(
        {
            "prompt_ids": [[7], [7]],
            "chosen_ids": [[1], [1]],
            "rejected_ids": [[2], [2]],
            "completion_ids": [[1], [1]],
            "label": [True, False],
        }
    )

    def measure(objective, reference=None):
        return preference.objective_metrics(
            None, rows, objective=objective, beta=BETA, reference=reference, batch_size=1, pad_id=0
        )

    return measure


def test_dpo(measure):
    found = measure("dpo", REFERENCE)
    # Rewards: chosen 0.5 and 0, rejected -0.5 and 1, so the margins are 1 and -1.
    assert found.row_losses == pytest.approx([-math.log(sigmoid(1)), -math.log(sigmoid(-1))])
    assert found.loss == pytest.approx(sum(found.row_losses) / 2)
    assert (found.rewards.margin, found.rewards.accuracy) == (0.0, 0.5)
    # Per token: -2 against -3, and -2 against -2.
    assert found.rewards.preferred == 0.75
    assert found.rewards.log_probabilities == POLICY
    assert found.unit == "per pair"


def test_a_policy_that_is_its_own_reference_is_undecided(measure):
    found = measure("dpo")
    assert found.row_losses == pytest.approx([math.log(2)] * 2)
    assert (found.rewards.margin, found.rewards.accuracy) == (0.0, 0.5)


def test_orpo(measure):
    found = measure("orpo")
    # Mean log-probabilities: chosen -2 and -2, rejected -3 and -2; odds are p / (1 - p).
    odds = [math.exp(x) / (1 - math.exp(x)) for x in (-2.0, -3.0)]
    assert found.row_losses == pytest.approx(
        [2 - BETA * math.log(sigmoid(math.log(odds[0] / odds[1]))), 2 - BETA * math.log(0.5)]
    )
    assert found.rewards.margin == pytest.approx(BETA * 0.5)
    assert found.rewards.accuracy == 0.75


def test_kto(measure):
    reference = {"completion": [-11.0, -9.0], "mismatched": [-11.0, -7.4]}
    found = measure("kto", reference)
    # The answers of other prompts are 1 and -0.6 likelier than the reference model finds them, so that
    # the reference point is 0.5 * 0.2. Rewards 0.5 and 0.5: right for the good answer, wrong for the bad.
    assert found.row_losses == pytest.approx([1 - sigmoid(0.4), 1 - sigmoid(-0.4)])
    assert (found.rewards.margin, found.rewards.accuracy) == (0.0, 0.5)
    assert found.rewards.preferred is None
    assert found.rewards.log_probabilities["mismatched"] == POLICY["chosen"]
    assert found.unit == "per answer"


def test_ktos_reference_point_is_never_below_zero(measure):
    found = measure("kto", {"completion": [-11.0, -9.0], "mismatched": [0.0, 0.0]})
    assert found.row_losses == pytest.approx([1 - sigmoid(0.5), 1 - sigmoid(-0.5)])
