"""The parts of a self-contained HTML page: no script, no outside request, images inside as base64.

Functions that take words escape them; those that take `body` expect HTML made by the others.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

from medssl.problems import printable

# A browser that honours this can't be made to load or run anything, whatever a case or class is called.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
FOOTER = "Research use only. Not a medical device."


def page(title: str, body: Iterable[str]) -> bytes:
    """Put the parts together; `title` is words."""
    style = files("medssl.reports").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{words(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{words(title)}</h1>
{"".join(body)}
<footer>{FOOTER}</footer>
</main>
</body>
</html>
""".encode()


def words(value: Any) -> str:
    """Escape any value for HTML, on one line, without control characters."""
    return escape(printable(str(value)))


class Link(NamedTuple):
    """Words in a table that lead to a file beside the page."""

    text: str
    target: str  # from the page's folder


def section(title: str, *body: str) -> str:
    """Give a heading and what stands under it; nothing where there is nothing."""
    return f"<section>\n<h2>{words(title)}</h2>\n{''.join(body)}</section>\n" if any(body) else ""


def heading(text: str) -> str:
    """Give a heading inside a section."""
    return f"<h3>{words(text)}</h3>\n"


def paragraph(text: str, kind: str = "") -> str:
    """Give a paragraph of words; `kind` is a class of report.css: answer, quiet."""
    return f"<p{_class(kind)}>{words(text)}</p>\n" if text else ""


def bullets(items: Sequence[str], kind: str = "") -> str:
    """Give a list; `kind` is a class of report.css: warnings."""
    lines = "".join(f"<li>{words(item)}</li>\n" for item in items)
    return f"<div{_class(kind)}><ul>\n{lines}</ul></div>\n" if items else ""


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], name: str) -> str:
    """Give a table of numbers, the first column words; a wide one scrolls inside its own box, which `name` labels."""
    head = "".join(f'<th scope="col">{words(cell)}</th>' for cell in header)
    body = "".join(_row([_cell(cell) for cell in row]) for row in rows)
    inner = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{words(name)}">\n{inner}\n</div>\n'


def bars(rows: Sequence[tuple[str, float, str]], name: str) -> str:
    """Give a table of words, a bar for each share of 1, and what stands beside it in words."""
    cells = [[words(row), f'<span style="width:{100 * share:.1f}%"></span>', words(text)] for row, share, text in rows]
    return f'<table class="bars" aria-label="{words(name)}"><tbody>\n{"".join(map(_row, cells))}</tbody></table>\n'


def settings(values: Mapping[str, Any]) -> str:
    """Give names and values of settings as a table of words."""
    rows = "".join(_row([words(name), f"<code>{words(plain(value))}</code>"]) for name, value in values.items())
    return f'<table class="words"><tbody>\n{rows}</tbody></table>\n' if values else ""


def folded(title: str, *body: str) -> str:
    """Give a part that is closed until it is asked for."""
    return f"<details><summary>{words(title)}</summary>\n{''.join(body)}</details>\n" if any(body) else ""


def picture(png: bytes, alt: str, caption: str = "", dark: bytes | None = None, wide: bool = False) -> str:
    """Give an image with its caption; `dark` is the same for a dark page, `wide` lets it scroll on a phone."""
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(dark)}">' if dark else ""
    image = f'<picture>{source}<img src="{_data(png)}" alt="{words(alt)}"></picture>'
    if wide:
        image = f'<div class="scroll wide" tabindex="0" role="region" aria-label="{words(alt)}">{image}</div>'
    below = f"<figcaption>{words(caption)}</figcaption>" if caption else ""
    return f"<figure>{image}{below}</figure>\n"


def card(png: bytes, alt: str, lines: Sequence[str]) -> str:
    """Give an image with lines of words under it, the first of them its name."""
    below = "".join(f"<span>{words(line)}</span>" for line in lines)
    return f'<figure><img src="{_data(png)}" alt="{words(alt)}"><figcaption class="lines">{below}</figcaption></figure>\n'


def grid(pictures: Sequence[str], kind: str = "") -> str:
    """Put pictures side by side, as many as the width holds; `kind` is a class of report.css: cards."""
    return f'<div class="{f"grid {kind}".strip()}">\n{"".join(pictures)}</div>\n' if pictures else ""


def plain(value: Any) -> str:
    """Write a setting as it would be typed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _row(cells: Sequence[str]) -> str:
    rest = "".join(f"<td>{cell}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{cells[0]}</th>{rest}</tr>\n'


def _cell(cell: Any) -> str:
    if isinstance(cell, Link):
        return f'<a href="{escape(quote(cell.target))}">{words(cell.text)}</a>'
    return words(cell)


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
