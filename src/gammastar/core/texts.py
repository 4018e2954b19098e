"""Names from files and users where they are shown: on a terminal, in a message, in a cell of a table."""

from __future__ import annotations

import html
import unicodedata

__all__ = ["cell", "escaped", "plain", "shortened"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of a formula


def plain(text: str, *, keep: str = "\n\t") -> str:
    r"""Return a text whose control characters, text directions and lone surrogates are spelled out.

    A terminal would obey them, and a reader would see another name than the one that is there.

    Examples
    --------
    >>> plain("a\x1b[31mb"), plain("\u202eabc"), plain("µ → e")
    ('a\\u001b[31mb', '\\u202eabc', 'µ → e')
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _harmless(c) else _spelled(c) for c in text)


def _harmless(c: str) -> bool:
    return c.isprintable() or unicodedata.category(c) == "Zs"


def _spelled(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def shortened(text: str, most: int = 200) -> str:
    """Return a text of so many characters at most, with an ellipsis where it was cut.

    Examples
    --------
    >>> shortened("abcdef", 3)
    'abc…'
    """
    return text if len(text) <= most else f"{text[:most]}…"


def escaped(text: str) -> str:
    r"""Return a text for an HTML page, as a name that nobody obeys.

    Examples
    --------
    >>> escaped("<b>\x1b")
    '&lt;b&gt;\\u001b'
    """
    return html.escape(plain(text))


def cell(value: object) -> object:
    """Return what stands in a cell of a CSV table: a name never begins as a formula does, numbers stay.

    Examples
    --------
    >>> cell("=1+1"), cell("ship"), cell(-1.0)
    ("'=1+1", 'ship', -1.0)
    """
    if not isinstance(value, str):
        return value
    text = plain(value, keep="")
    return f"'{text}" if text.startswith(FORMULA) and not _number(text) else text


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
