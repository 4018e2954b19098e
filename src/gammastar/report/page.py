"""The report of a run as one self-contained HTML page: no scripts, no links, no files beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from gammastar.report.style import png_bytes
from gammastar.report.tables import Table, html_table

__all__ = ["Provenance", "Section", "page"]

_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 "Helvetica Neue", Helvetica, Arial, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 60rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 1rem 0 .5rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem;
  border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
.mock { background: #e42536; color: #fff; font-weight: bold; padding: .6rem 1rem; border-radius: 4px; }
.mock b { letter-spacing: .15em; }
nav ol { columns: 2; padding-left: 1.3rem; } nav a { color: #234fa0; }
figure { margin: 1.2rem 0; text-align: center; } figure img { max-width: 100%; height: auto; }
figcaption, caption { font-size: .9rem; color: #444; text-align: left; margin: .3rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #888; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font: .85em ui-monospace, Menlo, Consolas, monospace; word-break: break-all; }
@media print { nav { display: none; } figure, table { break-inside: avoid; } }
"""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A section of the report.

    Attributes
    ----------
    heading : str
    paragraphs : sequence of str
        Plain text; it is escaped.
    figures : sequence of (caption, Figure)
    tables : sequence of Table
    """

    heading: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[tuple[str, Figure]] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where the numbers come from.

    Attributes
    ----------
    versions : mapping of str to str
        Package and version.
    digests : mapping of str to str
        Input or stage and its SHA-256.
    methods : mapping of str to str
        Number and how it was computed.
    placeholders : sequence of str
        Inputs that stand in for ones that are not at hand.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    placeholders: Sequence[str] = ()


def page(
    title: str,
    sections: Sequence[Section],
    *,
    mock: bool,
    provenance: Provenance | None = None,
    dpi: int = 120,
) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    title : str
    sections : sequence of Section
    mock : bool
        Put the MOCK banner on top.
    provenance : Provenance, optional
        Written as the last section; the placeholders stand above all sections too.
    dpi : int
        Resolution of the figures.

    Returns
    -------
    str
        One document; equal inputs give equal text.

    Examples
    --------
    >>> "MOCK" in page("Reach", [Section("Result", ["No number yet."])], mock=True)
    True
    """
    name = html.escape(title)
    source = provenance or Provenance()
    body = [f"<h1>{name}</h1>"]
    if mock:
        body.append(
            '<p class="mock" role="alert"><b>MOCK</b> — these results come from mock data: '
            "every contour is an expected reach, not an exclusion.</p>"
        )
    if source.placeholders:
        body += ["<p>Placeholders used in this run:</p>", _list(source.placeholders)]
    items = "".join(f'<li><a href="#s{i}">{html.escape(s.heading)}</a></li>' for i, s in enumerate(sections))
    last = len(sections)
    body.append(
        f'<nav aria-label="Contents"><ol>{items}<li><a href="#s{last}">Provenance</a></li></ol></nav>'
    )
    body += [_section(index, section, dpi) for index, section in enumerate(sections)]
    body.append(_provenance(last, source))
    # the policy makes a browser refuse anything that is not inside this file
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(index: int, section: Section, dpi: int) -> str:
    parts = [f'<section id="s{index}"><h2>{html.escape(section.heading)}</h2>']
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    parts += [_figure(caption, figure, dpi) for caption, figure in section.figures]
    parts += [f'<div class="scroll">{html_table(table)}</div>' for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _figure(caption: str, figure: Figure, dpi: int) -> str:
    content = base64.b64encode(png_bytes(figure, dpi=dpi)).decode("ascii")
    text = html.escape(caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def _provenance(index: int, source: Provenance) -> str:
    parts = [f'<section id="s{index}"><h2>Provenance</h2>']
    for heading, entries, code in (
        ("Methods", source.methods, False),
        ("Versions", source.versions, False),
        ("Digests (SHA-256)", source.digests, True),
    ):
        if not entries:
            continue
        wrap = "<code>{}</code>" if code else "{}"
        rows = "".join(
            f'<tr><th scope="row">{html.escape(key)}</th><td>{wrap.format(html.escape(value))}</td></tr>'
            for key, value in entries.items()
        )
        parts.append(
            f'<div class="scroll"><table><caption>{heading}</caption><tbody>{rows}</tbody></table></div>'
        )
    parts.append(
        "<p>Placeholders:</p>" + _list(source.placeholders)
        if source.placeholders
        else "<p>No placeholders.</p>"
    )
    return "\n".join([*parts, "</section>"])
