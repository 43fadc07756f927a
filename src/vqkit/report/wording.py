"""Numbers as people read them."""

from __future__ import annotations

import math
import re
from typing import Any


def finite(value: Any) -> float | None:
    """The value as a float, or None if it is missing, no number, infinite or NaN."""
    if isinstance(value, (bool, str)) or value is None:
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(result):
        return None
    return result


def of_items(text: str, item: str) -> str:
    """A sentence of ours on images as one on other items: an image -> a recording."""
    if item == "image":
        return text
    article = "an" if item[0] in "aeiou" else "a"
    text = re.sub(r"\b([Aa])n image\b", lambda found: found[1] + article[1:] + " image", text)
    text = re.sub(r"\bimage(s?)\b", item + r"\1", text)
    return re.sub(r"\bImage(s?)\b", item.capitalize() + r"\1", text)


def count(value: Any) -> str:
    """12345.0 -> 12,345; what is no finite number stays as it is."""
    if finite(value) is None:
        return str(value)
    return f"{float(value):,.0f}"


def number(value: Any) -> str:
    """Three significant digits, no exponent where it can be avoided: 0.0123, 1.23, 12.3, 1,235."""
    value = float(value)
    if not math.isfinite(value):
        return {math.inf: "infinite", -math.inf: "-infinite"}.get(value, "not a number")
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:.3g}"


def decibel(value: Any) -> str:
    """26.437 -> 26.4 dB; an exact reconstruction has infinite PSNR."""
    value = float(value)
    if value == math.inf:
        return "exact"
    if not math.isfinite(value):
        return "not a number"
    return f"{value:.1f} dB"


def quality(value: Any, unit: str) -> str:
    """The measure that items are ranked by, in its unit: 26.4 dB, 98.7 %."""
    return decibel(value) if unit == "dB" else share(float(value) / 100)


def share(value: Any) -> str:
    """0.123 -> 12.3 %.

    What is not quite everything never reads 100 %, what is not nothing never reads 0 %.
    """
    percent = 100 * float(value)
    if 99.95 <= percent < 100:
        return "99.9 %"
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if percent in (0, 100) or 10 <= percent < 90:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %"


def duration(seconds: Any) -> str:
    """83 -> 1 min 23 s"""
    whole = round(float(seconds))
    if whole < 60:
        return f"{float(seconds):.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def large(value: Any) -> str:
    """1234567 -> 1.23 M"""
    value = float(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"
