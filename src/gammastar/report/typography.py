"""Plain text of results as a paper sets it: χ², +−, 10¹⁸, m with an index."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WORDS = (
    (re.compile(r"\bchi2\b"), "χ²"),
    (re.compile(r"(?<!\S)\+-(?!\S)"), "+−"),
    (re.compile(r"(?<!\S)--(?=[\s).,]|$)"), "−−"),
    (re.compile(r"\bm_mu\b"), "m_μ"),
    (re.compile(r"\bmT\b"), "m_T"),
    (re.compile(r"\bepsilon\b"), "ε"),
    (re.compile(r"\bkappa\b"), "κ"),
    (re.compile(r"(?<=\d )sigma\b"), "σ"),
    (re.compile(r"(?<![\w.)\]])-(?=\d)"), "−"),
)
_POWER = re.compile(r"(?<![\w.])([−-]?\d+(?:\.\d+)?)e([+-]?\d{1,3})(?!\w)")
_INDEX = re.compile(r"\b([mqpE])_(μ|T|\w)(?!\w)")
_EXPONENT = re.compile(r"\^(-?\d+(?:\.\d+)?)")


_TOGETHER = re.compile(r"(?<=[\d⁰¹²³⁴⁵⁶⁷⁸⁹]) (?=[×±%σ]|[GMk]eV\b)|(?<=[×±]) (?=\d)")
_COUNT = re.compile(r"(?<![\w.,/:=+−-])\d{5,}(?= [a-z+−])")  # in front of what is counted
NO_BREAK, THIN = "\u00a0", "\u2009"


def raised(number: int) -> str:
    """Return a whole number as an exponent."""
    return str(number).translate(_RAISED)


def _power(found: re.Match[str]) -> str:
    mantissa, exponent = found[1], int(found[2])
    if float(mantissa.replace("−", "-")) == 1:
        return f"10{raised(exponent)}"
    return f"{mantissa} × 10{raised(exponent)}"


def powers(text: str) -> str:
    """Return a text whose numbers like 3e-7 are powers of ten."""
    return _POWER.sub(_power, text)


def typeset(text: str) -> str:
    """Return a text with the signs of a paper; names of files and options stay as they are."""
    for pattern, sign in _WORDS:
        text = pattern.sub(sign, text)
    return powers(text)


def marked_up(text: object) -> Markup:
    r"""Return a typeset text as HTML, escaped, with indices and exponents in their places.

    Lines do not break within a number and its unit, and large counts are in groups of three digits.
    """
    flat = _COUNT.sub(lambda found: f"{int(found[0]):,}".replace(",", THIN), typeset(str(text)))
    safe = str(escape(_TOGETHER.sub(NO_BREAK, flat)))
    safe = _INDEX.sub(r"<i>\1</i><sub>\2</sub>", safe)
    return Markup(_EXPONENT.sub(r"<sup>\1</sup>", safe))  # noqa: S704 - it was escaped before
