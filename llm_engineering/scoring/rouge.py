"""ROUGE-L of an answer and a reference: the F measure of their longest common subsequence of words.

Own code, where the library rouge-score has it too: that one is published as source only, so that each
set-up and each SageMaker job would build it, brings nltk, absl and joblib for a stemmer that is off by
default, and its tokenizer drops every letter outside of a to z: an answer in Russian scores 0 against
itself. On texts of those letters and digits the two agree (the tests hold figures of rouge-score 0.1.2).
"""

from __future__ import annotations

import re

_WRITTEN_WITHOUT_SPACES = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_WRITTEN_WITHOUT_SPACES}]|[^\W_{_WRITTEN_WITHOUT_SPACES}]+")


def words(text: str) -> list[str]:
    """Runs of letters and digits, lower case; of scripts without spaces, each character."""
    return _WORDS.findall(text.lower())


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L, F1, sentence level (Lin, Text Summarization Branches Out 2004, section 3.1), 0 to 1.

    Precision is the longest common subsequence's share of the answer's words, recall that of the
    reference's. Two texts without a word: 0.
    """
    ours, theirs = words(answer), words(reference)
    common = _longest_common(ours, theirs)
    if not common:
        return 0.0
    return 2.0 * common / (len(ours) + len(theirs))


def _longest_common(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, in O(len(first) x len(second))."""
    row = [0] * (len(second) + 1)
    for one in first:
        before = 0
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = before + 1 if one == other else max(above, row[place - 1])
            before = above
    return row[-1]
