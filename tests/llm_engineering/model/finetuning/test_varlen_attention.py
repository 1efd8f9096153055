"""The trial that an attention kernel for packed rows must pass before it is used."""

from __future__ import annotations

import pytest
import torch

from llm_engineering.model.finetuning.varlen_attention import (
    enable_varlen_attention,
    kernel_error,
)


class Reference:
    """Attention over the whole row with an explicit mask."""

    sees_other_documents = False

    @classmethod
    def apply(cls, q, k, v, ends, longest, causal, scale, left, right):
        assert (longest, causal, left, right) == (63, True, -1, 0)
        documents = torch.bucketize(torch.arange(len(q)), ends[1:], right=True)
        mask = torch.ones(len(q), len(q), dtype=torch.bool).tril()
        if not cls.sees_other_documents:
            mask &= documents[:, None] == documents[None]
        heads = (x.transpose(0, 1)[None] for x in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(
            *heads, attn_mask=mask, scale=scale, enable_gqa=True
        )
        return out[0].transpose(0, 1)


class Leaky(Reference):
    sees_other_documents = True


def test_a_kernel_that_keeps_documents_apart_passes():
    assert kernel_error(Reference, "cpu") < 0.02


def test_a_kernel_that_lets_documents_see_each_other_does_not():
    assert kernel_error(Leaky, "cpu") > 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a GPU")
def test_nothing_is_changed_without_a_gpu():
    assert not enable_varlen_attention()
