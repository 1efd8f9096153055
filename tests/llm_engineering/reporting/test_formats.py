from __future__ import annotations

import math

import pytest

from llm_engineering.reporting import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.5083, "3.51"),
        (33.393, "33.4"),
        (9.996, "10.0"),
        (139.7, "140"),
        (117_308.4, "117,308"),
        (-0.5, "−0.500"),
        (0.0002, "2e-4"),
        (0, "0"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
    ],
)
def test_number_has_three_significant_digits(value: float, text: str) -> None:
    assert formats.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.06098, "0.061"), (1200, "1,200")])
def test_trimmed_drops_closing_zeros(value: float, text: str) -> None:
    assert formats.trimmed(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.205, "20.5 %"), (1, "100.0 %"), (0.0045, "0.45 %"), (0.00004, "0.0040 %"), (0, "0 %")],
)
def test_percent(share: float, text: str) -> None:
    assert formats.percent(share) == text


def test_change_always_has_a_sign() -> None:
    assert formats.change(-0.178) == "−17.8 %"
    assert formats.change(0.178) == "+17.8 %"
    assert formats.change(math.nan) == "NaN %"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(2_200_000_000, "2.2 GB"), (999_900_000, "1.0 GB"), (850_000_000, "850 MB"), (12, "12 B")],
)
def test_size(amount: int, text: str) -> None:
    assert formats.size(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.21, "4.2 s"),
        (45, "45 s"),
        (59.7, "1 min 00 s"),
        (95, "1 min 35 s"),
        (7500, "2 h 05 min"),
        (3599.8, "1 h 00 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


def test_moment_is_in_utc() -> None:
    assert formats.moment("2026-11-24T23:47:10+02:00") == "24 November 2026, 21:47 UTC"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loss 3.20 -> 3.28 (+2.5%)", "loss 3.20 → 3.28 (+2.5 %)"),
        ("at least -1.20% better (2620 rows)", "at least −1.20 % better (2,620 rows)"),
        ("that of run-20261130-163340", "that of run-20261130-163340"),
        ("version v1-2 at 0.12345", "version v1-2 at 0.12345"),
    ],
)
def test_a_sentences_figures_are_written_as_the_pages_are(text: str, shown: str) -> None:
    assert formats.prose(text) == shown
