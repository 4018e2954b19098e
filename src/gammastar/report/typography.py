"""Plain text of results as a paper sets it: χ², +−, 10¹⁸, m with an index."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

__all__ = ["marked_up", "powers", "raised", "typeset"]

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
    """Return a whole number as an exponent.

    Examples
    --------
    >>> raised(-18)
    '⁻¹⁸'
    """
    return str(number).translate(_RAISED)


def _power(found: re.Match[str]) -> str:
    mantissa, exponent = found[1], int(found[2])
    if float(mantissa.replace("−", "-")) == 1:
        return f"10{raised(exponent)}"
    return f"{mantissa} × 10{raised(exponent)}"


def powers(text: str) -> str:
    """Return a text whose numbers like 3e-7 are powers of ten.

    Examples
    --------
    >>> powers("6e+20 protons, 1e-07")
    '6 × 10²⁰ protons, 10⁻⁷'
    """
    return _POWER.sub(_power, text)


def typeset(text: str) -> str:
    """Return a text with the signs of a paper; names of files and options stay as they are.

    Parameters
    ----------
    text : str
        As tables, manifests and terminals have it.

    Examples
    --------
    >>> typeset("chi2 = 231, +- pairs, 2 m_mu, -0.5, 1.2e-06")
    'χ² = 231, +− pairs, 2 m_μ, −0.5, 1.2 × 10⁻⁶'
    """
    for pattern, sign in _WORDS:
        text = pattern.sub(sign, text)
    return powers(text)


def marked_up(text: object) -> Markup:
    r"""Return a typeset text as HTML, escaped, with indices and exponents in their places.

    Lines do not break within a number and its unit, and large counts are in groups of three digits.

    Examples
    --------
    >>> str(marked_up("1.2e-06 of 184538 pairs")).split(" ")
    ['1.2\xa0×\xa010⁻⁶', 'of', '184\u2009538', 'pairs']
    >>> marked_up("m_mu < A^0.83")
    Markup('<i>m</i><sub>μ</sub> &lt; A<sup>0.83</sup>')
    """
    flat = _COUNT.sub(lambda found: f"{int(found[0]):,}".replace(",", THIN), typeset(str(text)))
    safe = str(escape(_TOGETHER.sub(NO_BREAK, flat)))
    safe = _INDEX.sub(r"<i>\1</i><sub>\2</sub>", safe)
    return Markup(_EXPONENT.sub(r"<sup>\1</sup>", safe))  # noqa: S704 - it was escaped before
