"""Markdown for Dagster's pages and model cards: cells that text from elsewhere cannot break, tables, and Jinja templates."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fraud_core.evaluation import figures
from fraud_core.signing.card_numbers import printable

MOST_ACROSS = 12  # columns of a sample side by side
_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "`": "'"})


def cell(value: Any) -> str:
    """A value from elsewhere, made harmless inside a table and inside a page: on one line, no markup, no card number."""
    return printable(" ".join(str(value).split())).translate(_ESCAPED)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal columns as a Markdown table."""
    if not rows:
        return "(no rows)"
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def sample_table(rows: list[dict[str, Any]]) -> str:
    """The same for a few rows; of many columns each is a line of its own, for a page is not so wide."""
    if not rows or len(rows[0]) <= MOST_ACROSS:
        return markdown_table(rows)
    return markdown_table([{"column": name} | {f"row {at}": row[name] for at, row in enumerate(rows, 1)} for name in rows[0]])


def render(template: str, **values: Any) -> str:
    """A page by a template of this folder. Whatever the template puts in is made harmless as a `cell` is."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        # What a macro makes of cells is Markup, and is not escaped again.
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(cell(value)),  # noqa: S704 - escaped by cell
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["percent"] = figures.percent
    return templates
