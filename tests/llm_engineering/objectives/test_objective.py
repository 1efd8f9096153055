"""What objectives share: mismatched pairs, and the tokens of a row."""

from llm_engineering.objectives import OBJECTIVES
from llm_engineering.objectives.objective import mismatched


def test_no_row_has_the_answer_of_its_neighbour_which_may_be_to_its_own_prompt():
    assert mismatched([[0], [1], [2], [3], [4]]) == [[2], [3], [4], [0], [1]]
    assert mismatched([[0], [1], [2], [3]]) == [[2], [3], [0], [1]]


def test_the_tokens_that_a_row_puts_through_the_model():
    assert OBJECTIVES["sft"].tokens_read({"input_ids": [1, 2, 3], "labels": [1, 2, 3]}) == 3
    pair = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}
    assert OBJECTIVES["dpo"].tokens_read(pair) == (2 + 1) + (2 + 2)
    assert OBJECTIVES["kto"].tokens_read({"prompt_ids": [1, 2], "completion_ids": [3]}) == 3
