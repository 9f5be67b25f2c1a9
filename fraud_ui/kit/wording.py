"""Numbers, times and texts as a person reads them, safe to put into a page."""

import html
import math
import traceback
from collections.abc import Iterable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from fraud_core.evaluation.intervals import Interval
from fraud_core.transactions.decision import Decision

MINUS = "\u2212"
DECISIONS: dict[Decision, str] = {"approve": "Approve", "review": "Review", "decline": "Decline"}


def escaped(text: object) -> str:
    """Text from elsewhere as part of a page: neither markup nor a placeholder of Gradio's templates."""
    return html.escape(str(text)).replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def percent(share: float, digits: int = 3) -> str:
    """A share with so many significant digits; the ends are not rounded to what they are not."""
    if 0 < share < 0.0001:
        return "under 0.01 %"
    if 0.9999 < share < 1:
        return "over 99.99 %"
    if 0.99 < share < 1:
        return f"{100 * share:.2f} %"
    return f"{_significant(100 * share, digits)} %"


def threshold(probability: float) -> str:
    """A threshold; one above 1 is never reached."""
    return "never" if probability > 1 else percent(probability)


def money(cents: float) -> str:
    """Cents as currency units. Which currency the amounts have, no source says."""
    return f"{cents / 100:,.2f}"


def kilometres(metres: float) -> str:
    """A distance."""
    return f"{metres:,.0f} m" if metres < 1_000 else f"{metres / 1_000:,.1f} km"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign."""
    return f"{'+' if value >= 0 else MINUS}{abs(value):.{digits}f}"


def interval(value: float | None, low_high: Interval | None, digits: int = 3) -> str:
    """A figure with its interval."""
    if value is None or low_high is None:
        return "too few frauds"
    return f"{value:.{digits}f} ({low_high.low:.{digits}f} to {low_high.high:.{digits}f})"


def moment(at: datetime, zone: ZoneInfo) -> str:
    """A time in somebody's zone, with its name."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number of things."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table; cells are markup already.

    Args:
        caption: what it shows; is read out, and seen.
        header: of each column.
        rows: as many cells each.
        numbers: places of the columns that hold numbers.
    """
    right = ["number" if at in numbers else "text" for at in range(len(header))]
    head = "".join(f'<th scope="col" class="{side}">{escaped(name)}</th>' for name, side in zip(header, right, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{side}">{cell}</td>' for cell, side in zip(row, right, strict=True)) + "</tr>"
        for row in rows
    )
    # It can be scrolled, so the keyboard must reach it.
    return (
        f'<div class="scrolls" tabindex="0" role="region" aria-label="{escaped(caption)}"><table><caption>{escaped(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def alert(title: str, lines: Iterable[str] = ()) -> str:
    """Something that went wrong, and what to do: read out at once."""
    listed = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return (
        f'<div class="alert" role="alert"><p><strong>{escaped(title)}</strong></p>{f"<ul>{listed}</ul>" if listed else ""}</div>'
    )


def note(sentence: str) -> str:
    """A sentence where there is nothing else to show."""
    return f'<p class="quiet">{escaped(sentence)}</p>'


def without_values(error: BaseException) -> str:
    """The kinds of an error and its causes, and the lines of code that they went through: messages may hold what was typed."""
    parts = []
    one: BaseException | None = error
    while one is not None:
        lines = traceback.extract_tb(one.__traceback__)
        parts.append(type(one).__name__ + "".join(f"\n  {line.filename}:{line.lineno} in {line.name}" for line in lines))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\ncaused by ".join(parts)


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
