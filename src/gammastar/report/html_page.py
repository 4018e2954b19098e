"""The report of a run as one self-contained HTML page: no scripts, no links, no files beside it."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gammastar.core.documents import escaped
from gammastar.core.files import write_whole
from gammastar.report.style import png_bytes
from gammastar.report.tables import Table, html_table

__all__ = ["Provenance", "Section", "page", "save_page", "titled"]

_CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --soft: #555; --rule: #d0d0d0;
  --link: #1f4e9e; --mock: #b3152b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181c; --soft: #b0b0b0;
  --rule: #3c4048; --link: #8fb7ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 "Helvetica Neue", Helvetica, Arial, sans-serif; color: var(--ink);
  background: var(--paper); max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 1rem 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-bottom: .2rem;
  border-bottom: 1px solid var(--rule); }
a { color: var(--link); } a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; } .skip:focus { position: static; }
.mock { background: var(--mock); color: #fff; padding: .6rem 1rem; border-radius: 4px; }
.mock b { letter-spacing: .12em; }
nav ol { columns: 15rem 2; padding-left: 1.5rem; margin: .5rem 0; }
figure { margin: 1.4rem 0; }
figure img { display: block; width: auto; max-width: 100%; height: auto; margin: 0 auto; background: #fff;
  border-radius: 4px; }
figcaption { font-size: .92rem; color: var(--soft); max-width: 46rem; margin: .4rem auto 0; }
caption { font-size: .92rem; color: var(--soft); text-align: left; padding: .3rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .8rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--soft); }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody th { font-weight: normal; white-space: nowrap; }
code { font: .85em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .75rem .75rem 3rem; } tbody th { white-space: normal; }
  th, td { padding: .25rem .45rem; } }
@media print { :root { --ink: #000; --paper: #fff; --soft: #333; --rule: #bbb; --link: #000; }
  @page { margin: 14mm; } body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav, .skip { display: none; } figure, tr, caption { break-inside: avoid; } h2 { break-after: avoid; }
  figure img { max-height: 11cm; } .scroll { overflow: visible; }
  .mock { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A section of the report.

    Attributes
    ----------
    heading : str
    paragraphs : sequence of str
        Plain text; it is escaped.
    figures : sequence of (caption, Figure or the bytes of a PNG file)
    tables : sequence of Table
    """

    heading: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[tuple[str, Figure | bytes]] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where the numbers come from.

    Attributes
    ----------
    versions : mapping of str to str
        Package and version.
    seeds : mapping of str to int
        Stage and the seed of its random stream.
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
    seeds: Mapping[str, int] = field(default_factory=dict)


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
        Resolution of figures that are not drawn yet.

    Returns
    -------
    str
        One document; equal inputs give equal text.

    Examples
    --------
    >>> "MOCK" in page("Reach", [Section("Result", ["No number yet."])], mock=True)
    True
    """
    name = escaped(title)
    source = provenance or Provenance()
    body = [f'<h1 id="top">{name}</h1>']
    if mock:
        body.append(
            '<p class="mock" role="note"><b>MOCK</b> — these results come from mock data: '
            "every contour is an expected reach, not an exclusion.</p>"
        )
    if source.placeholders:
        body += ["<p>Placeholders used in this run:</p>", _list(source.placeholders)]
    items = "".join(f'<li><a href="#s{i}">{escaped(s.heading)}</a></li>' for i, s in enumerate(sections))
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
        f"<title>{name}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#s0">Skip to the results</a>\n<main>\n'
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def save_page(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page completely or not at all.

    Parameters
    ----------
    text : str
        From `page`.
    path : path
        Its folder is made if it is missing.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    target = Path(path)
    write_whole(target, text.encode("utf-8"))
    return target


def _section(index: int, section: Section, dpi: int) -> str:
    heading = escaped(section.heading)
    parts = [f'<section id="s{index}" aria-labelledby="h{index}"><h2 id="h{index}">{heading}</h2>']
    parts += [f"<p>{escaped(text)}</p>" for text in section.paragraphs]
    parts += [_figure(caption, figure, dpi) for caption, figure in section.figures]
    parts += [_scroll(html_table(table), table.caption or section.heading) for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _figure(caption: str, figure: Figure | bytes, dpi: int) -> str:
    drawn = figure if isinstance(figure, bytes) else png_bytes(figure, dpi=dpi)
    content = base64.b64encode(drawn).decode("ascii")
    text = escaped(caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _scroll(table: str, label: str) -> str:
    """Wrap a table so that a narrow screen scrolls it and not the page; reachable by keyboard."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(label)}">{table}</div>'


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escaped(item)}</li>" for item in items) + "</ul>"


def _provenance(index: int, source: Provenance) -> str:
    parts = [f'<section id="s{index}" aria-labelledby="h{index}"><h2 id="h{index}">Provenance</h2>']
    for heading, entries, code in (
        ("Methods", source.methods, False),
        ("Versions", source.versions, False),
        ("Seeds", {name: str(seed) for name, seed in source.seeds.items()}, False),
        ("Digests (SHA-256)", source.digests, True),
    ):
        if not entries:
            continue
        wrap = "<code>{}</code>" if code else "{}"
        rows = "".join(
            f'<tr><th scope="row">{escaped(key)}</th><td>{wrap.format(escaped(value))}</td></tr>'
            for key, value in entries.items()
        )
        table = f"<table><caption>{heading}</caption><tbody>{rows}</tbody></table>"
        parts.append(_scroll(table, heading))
    parts.append(
        "<p>Placeholders:</p>" + _list(source.placeholders)
        if source.placeholders
        else "<p>No placeholders.</p>"
    )
    return "\n".join([*parts, "</section>"])


def titled(name: str, caption: str, figure: Any) -> tuple[str, Any]:
    """Return caption and figure of a report section; `name` becomes the name of the file."""
    figure.set_label(name)
    return caption, figure
