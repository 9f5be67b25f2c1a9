"""The sizing table of docs/scaling.md, from the bench's figures."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

LOAD = 0.5  # of what a worker bears at most: half, so that it stays quick, and another can be missing
TARGETS = (100, 1_000, 10_000)  # payments a second, at the peak
KINDS = {
    "scoring": "model without history, nothing recorded",
    "sqlite": "history and decisions in SQLite: one machine",
    "redis": "history in Redis: any number of machines",
}
BEGIN, END = "<!-- sizing: made by `make bench` -->", "<!-- end of sizing -->"


def sizing(per_second: Mapping[str, float], resident_mb: float) -> str:
    """How many workers carry which load, as a Markdown table.

    Args:
        per_second: what one worker on one core bears, in requests a second, by kind (see `KINDS`); others are left out.
        resident_mb: memory of a worker, in MB.
    """
    targets = " | ".join(f"workers for {target:,}/s" for target in TARGETS)
    lines = [
        f"| scorer | requests/s a worker bears | planned ({LOAD:.0%}) | {targets} |",
        "|---|" + "---:|" * (2 + len(TARGETS)),
    ]
    for kind, name in KINDS.items():
        if kind in per_second:
            planned = per_second[kind] * LOAD
            counts = " | ".join(f"{ceil(target / planned):,}" for target in TARGETS)
            lines.append(f"| {name} | {per_second[kind]:,.0f} | {planned:,.0f} | {counts} |")
    return "\n".join([*lines, "", f"A worker takes a core and {resident_mb:,.0f} MB."])


def write_sizing(page: Path, table: str) -> None:
    """Put a table between the page's two marks.

    Raises:
        ValueError: the page does not have them.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has lost the marks between which the sizing table goes: {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
