"""KTO's mismatched pairs."""

from llm_engineering.objectives.kto import neighbours


def test_a_row_that_is_alone_in_its_micro_batch_is_paired_with_another_answer():
    assert neighbours([[0], [1], [2], [3], [4]], 2) == [[1], [0], [3], [2], [3]]
    assert neighbours([[0], [1], [2], [3], [4]], 3) == [[2], [0], [1], [4], [3]]
