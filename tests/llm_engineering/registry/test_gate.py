"""The gate's own decisions, on versions that are made up; test_promotion holds real adapters against it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.registry import RegistrySettings
from llm_engineering.errors import RegistryError
from llm_engineering.model.finetuning.record import AdapterFolder
from llm_engineering.registry import promotion
from llm_engineering.registry.checks import Candidate, Production
from llm_engineering.registry.decision import Check, Decision
from llm_engineering.registry.promotion import production_to_measure, promote
from llm_engineering.registry.versions import ADAPTER_DIGEST, BASE_WEIGHTS_DIGEST, ROLLED_BACK
from llm_engineering.training.production import ProductionAdapter

LOSSES = [1.0, 2.0]
MEASURED = [3.0, 4.0]
ADAPTER = AdapterFolder(Path("theirs"), "their digest")
OURS = AdapterFolder(Path("ours"), "our digest")


def of_losses(losses: list[float]) -> Any:
    return SimpleNamespace(after=SimpleNamespace(row_losses=losses))


def a_version(name: str = "first", **figures: Any) -> Any:
    """A version that adapts our base model, was evaluated on our rows, and learned none of them."""
    known = {BASE_WEIGHTS_DIGEST: "weights", "held_out_digest": "rows", "base_model": "their/base"}
    stored = {"adapter": ADAPTER, "evaluation": of_losses(LOSSES), "dataset": "their data"}
    return SimpleNamespace(name=name, run_metadata=known | figures, stored=stored)


class Gate:
    """What the gate is given, and what it asks of the registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.columns = ["input_ids"]
        self.dataset = SimpleNamespace(
            summary=SimpleNamespace(held_out_digest="rows"), split=self.split
        )
        self.record = SimpleNamespace(evaluation=None, production=None)
        self.lora = SimpleNamespace(model="our model")
        self.current: list[Any] = []
        """The production versions, one each time that it is asked for; the last one stays."""
        self.versions: list[Any] = []
        self.learned = 0
        self.switchable = True
        self.passes = True
        self.unchallenged = [True]
        self.candidates: list[Candidate] = []
        self.promoted: list[Any] = []
        self.measured: list[Any] = []
        replaced = {
            "production_version": self.production_version,
            "rolled_back_versions": lambda model: self.versions,
            "artifact": self.artifact,
            "weights_digest": lambda model: {"our model": "weights"}[model],
            "learned_rows": self.learned_rows,
            "require_switchable": self.require_switchable,
            "measure_production": self.measure_production,
            "run_checks": self.run_checks,
            "promote_if_unchallenged": self.promote_if_unchallenged,
        }
        for name, stand_in in replaced.items():
            monkeypatch.setattr(promotion, name, stand_in)

    def split(self, name: str) -> Any:
        class Rows(list[int]):
            column_names = self.columns

        assert name == "held_out"
        return Rows(range(7))

    def production_version(self, model: str) -> Any:
        assert model == "my-model"
        return self.current.pop(0) if len(self.current) > 1 else next(iter(self.current), None)

    def artifact(self, version: Any, name: str) -> Any:
        if name not in version.stored:
            raise RegistryError(f"the {name} of {version.name} is not in the store")
        return version.stored[name]

    def learned_rows(self, theirs: Any, dataset: Any) -> int:
        assert (theirs, dataset) == ("their data", self.dataset)
        return self.learned

    def require_switchable(self, lora: Any, production: ProductionAdapter) -> None:
        assert (lora, production.adapter) == (self.lora, ADAPTER)
        if not self.switchable:
            raise RegistryError("one of the two trained its biases")

    def measure_production(self, *arguments: Any) -> Any:
        self.measured.append((*arguments[:-1], arguments[-1].batch_size))
        return SimpleNamespace(metrics=SimpleNamespace(row_losses=MEASURED))

    def run_checks(self, candidate: Candidate, settings: RegistrySettings) -> list[Check]:
        self.candidates.append(candidate)
        return [
            Check(name="one", passed=True, detail="is sound"),
            Check(name="two", passed=self.passes, detail="is no better"),
            Check(name="three", passed=self.passes, detail="is no sounder"),
        ]

    def promote_if_unchallenged(self, model: str, version: str, **options: Any) -> bool:
        self.promoted.append((model, version, options))
        return self.unchallenged.pop(0)

    def decide(self, **settings: Any) -> Decision:
        return promote(
            "my-model", "mine", RegistrySettings(**settings), EvaluateSettings(batch_size=3),
            dataset=self.dataset, lora=self.lora, adapter=OURS, record=self.record,
            evaluation="our evaluation", parity="our proofs",
        )  # type: ignore[arg-type]  # fmt: skip

    def held_against(self, version: Any) -> Production:
        """What the candidate is compared with where this version is production."""
        self.current = [version]
        self.decide()
        (candidate,) = self.candidates
        assert candidate.production is not None
        return candidate.production


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


# --- the decision ------------------------------------------------------------------------------


def test_the_first_version_is_promoted(gate: Gate) -> None:
    decision = gate.decide()

    assert decision.promoted
    assert (decision.model, decision.version, decision.production) == ("my-model", "mine", None)
    assert decision.reason == "the first version to pass all 3 checks"
    assert [check.name for check in decision.checks] == ["one", "two", "three"]
    assert gate.promoted == [("my-model", "mine", {"expected": None, "reason": decision.reason})]
    (candidate,) = gate.candidates
    assert candidate == Candidate(
        summary=gate.dataset.summary, adapter=OURS, record=gate.record,
        evaluation="our evaluation", rolled_back={}, production=None, parity="our proofs",
    )  # type: ignore[arg-type]  # fmt: skip


def test_a_better_one_replaces_production(gate: Gate) -> None:
    gate.current = [a_version("first")]

    decision = gate.decide()

    assert decision.promoted
    assert decision.production == "first"
    assert decision.reason == "better than first, and passed all 3 checks"
    assert gate.promoted[0][2]["expected"] == "first"
    assert gate.candidates[0].production == Production("first", LOSSES)


def test_one_failed_check_is_enough(gate: Gate) -> None:
    gate.current, gate.passes = [a_version("first")], False

    decision = gate.decide()

    assert not decision.promoted
    assert decision.reason == "two: is no better; three: is no sounder"
    assert decision.production == "first"
    assert len(decision.checks) == 3
    assert gate.promoted == []


def test_it_is_compared_again_with_the_one_that_overtook_it(gate: Gate) -> None:
    gate.current, gate.unchallenged = [a_version("first"), a_version("rival")], [False, True]

    decision = gate.decide()

    assert decision.promoted
    assert decision.production == "rival"
    assert [asked[2]["expected"] for asked in gate.promoted] == ["first", "rival"]


def test_promotion_can_be_turned_off(gate: Gate) -> None:
    decision = gate.decide(promote=False)

    assert decision == Decision(
        model="my-model", version="mine", promoted=False,
        reason="registered only (registry.promote: false)",
    )  # fmt: skip
    assert gate.candidates == gate.promoted == []


def test_what_was_rolled_back_is_known_to_the_checks(gate: Gate) -> None:
    gate.versions = [
        a_version("bad", **{ADAPTER_DIGEST: "b", ROLLED_BACK: True}),
    ]
    gate.decide()

    assert gate.candidates[0].rolled_back == {"b": "bad"}


# --- production's losses on our rows -----------------------------------------------------------


def test_losses_on_the_same_rows_are_taken_as_stored(gate: Gate) -> None:
    gate.learned, gate.switchable = 1, False  # neither is asked then

    assert gate.held_against(a_version()) == Production("first", LOSSES)
    assert gate.measured == []


@pytest.mark.parametrize("why", ["other rows", "preferences", "evaluation lost"])
def test_losses_that_are_not_known_are_measured_here(why: str, gate: Gate) -> None:
    version = a_version(held_out_digest="others" if why == "other rows" else "rows")
    gate.columns = ["prompt_ids"] if why == "preferences" else gate.columns
    if why == "evaluation lost":
        del version.stored["evaluation"]

    assert gate.held_against(version) == Production("first", MEASURED)
    theirs = ProductionAdapter("first", ADAPTER)
    assert gate.measured == [(gate.lora, OURS, theirs, gate.dataset, gate.record, 3)]


def there(version: str) -> Any:
    return SimpleNamespace(version=version, metrics=SimpleNamespace(row_losses=[5.0]))


@pytest.mark.parametrize(
    ("measured", "losses"), [(there("first"), [5.0]), (there("another"), None), (None, None)]
)
def test_losses_were_measured_where_the_run_was_trained(
    measured: Any, losses: list[float] | None, gate: Gate
) -> None:
    gate.record = SimpleNamespace(evaluation="by the job", production=measured)

    production = gate.held_against(a_version(held_out_digest="others"))

    assert (production.name, production.row_losses) == ("first", losses)
    assert (losses is None) == ("held-out rows are not known" in production.why_not)
    assert gate.measured == []


def test_another_base_model_is_not_compared(gate: Gate) -> None:
    production = gate.held_against(a_version(**{BASE_WEIGHTS_DIGEST: "others"}))

    assert (production.name, production.row_losses) == ("first", None)
    assert production.why_not.startswith("it adapts another base model (their/base), whose loss")


def test_rows_that_production_learned_are_no_evidence(gate: Gate) -> None:
    gate.learned = 2

    production = gate.held_against(a_version(held_out_digest="others"))

    assert production.row_losses is None
    assert production.why_not.startswith("it was trained on 2 of these 7 held-out rows")


def test_adapters_that_cannot_take_turns_are_not_compared(gate: Gate) -> None:
    gate.switchable = False

    production = gate.held_against(a_version(held_out_digest="others"))

    assert production == Production("first", None, "one of the two trained its biases")


# --- what is measured where a run is trained ---------------------------------------------------


def to_measure(gate: Gate) -> ProductionAdapter | None:
    return production_to_measure("my-model", gate.dataset, gate.lora)  # type: ignore[arg-type]


def test_production_is_measured_where_its_losses_are_not_known(gate: Gate) -> None:
    gate.current = [a_version(held_out_digest="others")]

    assert to_measure(gate) == ProductionAdapter("first", ADAPTER)


@pytest.mark.parametrize(
    "why", ["no production", "known", "another base", "adapter lost", "learned", "biases"]
)
def test_production_is_not_measured_in_vain(why: str, gate: Gate) -> None:
    version = a_version(held_out_digest="rows" if why == "known" else "others")
    gate.current = [] if why == "no production" else [version]
    gate.learned, gate.switchable = int(why == "learned"), why != "biases"
    if why == "another base":
        version.run_metadata[BASE_WEIGHTS_DIGEST] = "others"
    if why == "adapter lost":
        del version.stored["adapter"]

    assert to_measure(gate) is None
