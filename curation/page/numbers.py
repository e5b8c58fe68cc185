"""Numbers as a reader wants them: grouped, rounded to what carries meaning, never `1e+05`."""

from __future__ import annotations

_NARROW = "\u202f"  # a number and its sign stay on one line
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def whole(value: float) -> str:
    """`1234567` -> `1,234,567`; a fraction is rounded."""
    return f"{round(value):,}"


def compact(value: float) -> str:
    """`1200` -> `1.2k`, `170000` -> `170k`, `0.1` -> `0.1`: for axes and tight labels."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def percent(share: float | None) -> str:
    """`0.4412` -> `44.1 %`, `0.00031` -> `0.031 %`; None (a share of nothing) -> `n/a`."""
    if share is None:
        return "n/a"
    value = share * 100
    if value == 0 or value == 100:
        return f"{value:.0f}{_NARROW}%"
    if abs(value) >= 0.1:
        return f"{value:.1f}{_NARROW}%"
    return f"{value:.2g}{_NARROW}%" if abs(value) >= 0.001 else f"<{_NARROW}0.001{_NARROW}%"


def decimal(value: float, digits: int = 4) -> str:
    """Fixed digits; exact 0 and 1 stand alone, what only rounds to 0 is `< 0.0001`."""
    if value in (0, 1):
        return f"{value:.0f}"
    if abs(value) < 0.5 * 10**-digits:
        return f"< {10**-digits:.{digits}f}"
    return f"{value:.{digits}f}"


def size(count: float) -> str:
    """Bytes with a decimal unit: `3359617` -> `3.4 MB`."""
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def share(part: float, total: float) -> float | None:
    """part / total, or None when there is no total."""
    return part / total if total else None
