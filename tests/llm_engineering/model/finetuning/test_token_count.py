"""Tokens count once their batch is trained, and not where it was only put together."""

from llm_engineering.model.finetuning.token_count import TokenCount


def test_a_batch_counts_in_its_turn():
    count = TokenCount(len)
    collate = count.collating(lambda rows: [len(row) for row in rows])
    assert collate(["abc", "de"]) == [3, 2], "the collator's own batch"
    collate(["f"])  # ahead of its turn
    assert count.trained == 0
    count.batch_is_trained()
    assert count.trained == 5
    count.batch_is_trained()
    assert count.trained == 6


def test_what_an_ended_pass_had_put_together_is_forgotten():
    count = TokenCount(len)
    collate = count.collating(list)
    collate(["abc"])
    count.forget_waiting()
    collate(["de"])
    count.batch_is_trained()
    assert count.trained == 2
