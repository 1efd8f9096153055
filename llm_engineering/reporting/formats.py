"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_MINUS = "\u2212"


def count(value: int) -> str:
    """A whole number: ``1,234``."""
    return _sign(f"{value:,}")


def number(value: float) -> str:
    """Three significant digits: ``3.51``, ``33.4``, ``1,235``, ``2e-4``; ``NaN`` if it is not one."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else _sign("∞" if value > 0 else "-∞")
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if abs(rounded) < 1e-3:
        return scientific(value)
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return _sign(f"{rounded if decimals else value:,.{decimals}f}")


def fixed(value: float) -> str:
    """Three decimals, as scores of rows beside each other are read: ``0.250``."""
    return _sign(f"{value:.3f}") if f"{value:.3f}" != "-0.000" else "0.000"


def signed(value: float) -> str:
    """The same of a difference, with its sign: ``+0.042``."""
    text = fixed(value)
    return f"+{text}" if value > 0 and text != "0.000" else text


def trimmed(value: float) -> str:
    """Three significant digits without closing zeros: ``1``, ``0.061``."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def scientific(value: float) -> str:
    """Three significant digits and a power of ten: ``2e-4`` for 0.0002."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return "0" if value == 0 else _sign(f"{float(mantissa):g}e{int(exponent)}")


def percent(share: float) -> str:
    """A share as a percentage: 0.205 is ``20.5 %``; two significant digits below 1 %."""
    value = 100 * share
    if not math.isfinite(value) or value == 0:
        return f"{number(value)} %"
    decimals = max(1, 1 - math.floor(math.log10(abs(value)))) if abs(value) < 1 else 1
    return _sign(f"{value:.{decimals}f}") + " %"


def change(share: float) -> str:
    """A relative change with its sign: -0.178 is ``−17.8 %``."""
    return ("+" if share > 0 else "") + percent(share)


def size(count_of_bytes: int) -> str:
    """Bytes in decimal units: ``2.2 GB``, ``850 MB``."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count_of_bytes >= 0.9995 * 10**power:
            value = count_of_bytes / 10**power
            return f"{value:,.1f} {unit}" if unit == "GB" else f"{value:,.0f} {unit}"
    return f"{count_of_bytes} B"


def duration(seconds: float) -> str:
    """Seconds in the two largest units: ``1 min 35 s``, ``2 h 05 min``; ``4.2 s`` below ten."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def moment(iso: str) -> str:
    """An ISO 8601 time in UTC: ``24 November 2026, 21:47 UTC``."""
    time = datetime.fromisoformat(iso).astimezone(UTC)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def prose(text: str) -> str:
    """A sentence of the log with its figures as this page writes them: ``2,620``, ``−1.2 %``, ``→``."""
    text = text.replace("->", "→")
    text = re.sub(r"(?<![\w.-])\d{4,9}(?![\w.-]|\.\d)", lambda found: count(int(found[0])), text)
    text = re.sub(r"(?<=\d)%", " %", text)
    return re.sub(r"(?<![\w)\d])-(?=\d)", _MINUS, text)


def _sign(text: str) -> str:
    """With a true minus sign before the number; an exponent keeps the short one."""
    return _MINUS + text[1:] if text.startswith("-") else text


def usd(value: float | None) -> str:
    """A price: 1.23 USD, or that it is not known."""
    return "no price configured" if value is None else f"{value:,.2f} USD"
