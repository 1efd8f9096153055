"""Sharing the weights where no GPU holds them: when, at what cost, and what is said."""

import pytest

from llm_engineering.errors import HardwareError
from llm_engineering.planning import hardware
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.device_plans import require_memory
from llm_engineering.planning.memory import estimate_memory
from llm_engineering.planning.sharded_plan import explain_no_sharing, explain_sharing, sharded_plans

H100 = 79.2 * GIB
# Llama-3-70B's layers, but 48 of them: 43.2e9 parameters. Measured on two H100 with rows of 2,048
# tokens, micro-batch 1: 59.0e9 bytes reserved on each.
MEASURED = 59.0e9


@pytest.fixture
def workload(work):
    """What was measured, with some settings of its training changed."""

    def make(**train):
        settings = {"effective_batch": 2, "packing": True, "optimizer": "adamw_torch"}
        return work("Llama-3-70B, 48 layers", **{**settings, **train})

    return make


def test_the_estimate_is_that_of_the_measured_run(workload):
    plan = sharded_plans(workload(), ranks=2)[-1]
    assert (plan.micro_batch, plan.gradient_accumulation, plan.sharded) == (1, 2, True)
    assert plan.estimate.reserved == pytest.approx(MEASURED, rel=0.1)
    assert plan.fits(H100)


def test_a_rank_holds_its_share_three_layers_and_an_embedding(workload):
    work = workload(effective_batch=4, micro_batch=2)
    (plan,) = sharded_plans(work, ranks=4)
    whole = estimate_memory(work, 2, "plain")
    layer = 8192 * (2 * 8192 + 2 * 1024 + 3 * 28672) + 2 * 8192  # its projections and two norms
    assert plan.gradient_checkpointing == "plain"
    assert plan.estimate.weights == whole.weights / 4 + 2 * (3 * layer + 128256 * 8192)
    assert plan.estimate.adapter == whole.adapter / 4
    assert plan.estimate.working == 2 * 2048 * 128256 * 12.0  # all rows' logits at once
    assert plan.estimate.activations == whole.activations


@pytest.mark.parametrize(
    ("row", "sizes"), [(2048, [4, 2, 1]), (2049, [2, 1]), (8192, [1]), (16_384, [1])]
)
def test_a_forward_pass_has_8192_tokens_at_most_where_a_row_has_no_more(row, sizes, workload):
    plans = sharded_plans(workload(effective_batch=16, row=row), ranks=2)
    assert [plan.micro_batch for plan in plans] == sizes
    assert [plan.gradient_accumulation for plan in plans] == [16 // size for size in sizes]


def test_a_refusal_says_what_sharing_would_need(workload):
    work = workload(effective_batch=4)
    least = sharded_plans(work, 2)[-1]
    assert least.micro_batch == 1
    told = f"shared by 2 GPUs (FSDP) it would need {least.estimate.total / GIB:.1f} GiB on each"
    assert explain_no_sharing(work, 2).strip() == told
    assert explain_no_sharing(work, 1) == ""


def test_it_is_said_and_qlora_is_named(workload):
    text = explain_sharing(workload(), 2, H100)
    assert text.startswith("the weights do not fit one GPU (79.2 GiB)")
    assert "the 2 GPUs share them (FSDP, plain PEFT), after 86 GiB of the host's memory" in text
    assert "model.quantisation: nf4 (QLoRA) would fit each" in text


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"optimizer": "adamw_8bit"}, "adamw_8bit does not; adamw_torch does"),
        ({"objective": "dpo", "packing": False}, "dpo does not; sft does"),
    ],
)
def test_what_cannot_share_the_weights_is_named(train, said, workload):
    work = workload(**{"packing": False, **train})
    assert sharded_plans(work, 2) == []
    assert said in explain_no_sharing(work, 2)


def test_trained_tokens_cannot_share_the_weights(workload):
    work = workload()
    lora = work.lora.model_copy(update={"trainable_tokens": ["<a>"]})
    work = work.model_copy(update={"lora": lora})
    assert sharded_plans(work, 2) == []
    assert "lora.trainable_tokens does not (PEFT" in explain_no_sharing(work, 2)


def test_a_model_that_no_gpu_holds_is_refused_on_one_and_shared_by_two(
    make_config, workload, monkeypatch, caplog
):
    caplog.set_level("INFO")
    need = []
    monkeypatch.setattr(hardware, "has_gpu", lambda: True)
    monkeypatch.setattr(hardware, "resolve_dtype", lambda settings: "bfloat16")
    monkeypatch.setattr(hardware, "device_name", lambda: "H100")
    monkeypatch.setattr(hardware, "gpu_capacity_bytes", lambda: int(H100))
    monkeypatch.setattr(hardware, "free_host_bytes", lambda: int(90 * GIB))
    work = workload()
    monkeypatch.setattr(
        "llm_engineering.planning.device_plans.configured_workload",
        lambda config, shape, dtype: need.append(dtype) or work,
    )
    with pytest.raises(HardwareError, match="does not fit H100"):
        require_memory(make_config(), work, ranks=1)
    require_memory(make_config(), work, ranks=2)
    assert need == ["bfloat16", "bfloat16"]
    assert "the weights do not fit one GPU" in caplog.text
    assert "the 2 GPUs share them (FSDP, plain PEFT), after 86 GiB of the host's" in caplog.text

    monkeypatch.setattr(hardware, "free_host_bytes", lambda: int(64 * GIB))
    with pytest.raises(HardwareError, match=r"takes 86\.0 GiB, and 64\.0 GiB are free"):
        require_memory(make_config(), work, ranks=2)
