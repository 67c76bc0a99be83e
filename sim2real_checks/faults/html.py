"""Parts of reports that are one HTML file: tables, figures inside the page, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th { border-bottom: 2px solid #888; } th:first-child, td:first-child, td.text { text-align: left; }
.bad { color: #b00020; font-weight: 600; } .good { color: #1b7f3b; font-weight: 600; }
img { max-width: 100%; } .note { color: #666; } .scroll { overflow-x: auto; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page; `parts` are HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Text, escaped; `kind` is a class of the style: good, bad, note."""
    return f'<p class="{kind}">{escape(text)}</p>'


def heading(text: str) -> str:
    """Heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def bullets(lines: Iterable[str]) -> str:
    """A list of lines, escaped."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], bad: Sequence[bool] = ()) -> str:
    """A table; text cells are left-aligned, `bad` marks rows."""
    marks = list(bad)
    out = ["<div class=scroll><table><tr>", *(f"<th>{escape(name)}</th>" for name in head), "</tr>"]
    for i, row in enumerate(rows):
        kind = ' class="bad"' if i < len(marks) and marks[i] else ""
        out.append(f"<tr{kind}>" + "".join(_cell(value) for value in row) + "</tr>")
    return "".join(out) + "</table></div>"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "<td>–</td>"
    if isinstance(value, float):
        return f"<td>{value:.4g}</td>"
    if isinstance(value, int):
        return f"<td>{value}</td>"
    return f'<td class="text">{escape(str(value))}</td>'


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure without a window system, inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def image(figure: Any, description: str) -> str:
    """A figure as a picture inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{escape(description, quote=True)}" src="data:image/png;base64,{data}"></p>'


def write_text(path: Path, text: str) -> None:
    """Write a file, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
