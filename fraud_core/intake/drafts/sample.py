"""Sample of a source's first file, field by field: what was parsed, missing and refused, for whoever wrote the TOML."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from fraud_core.intake.files import chunks, located, read_joined
from fraud_core.intake.parsing import FieldSummary, examine, parse
from fraud_core.intake.values.clocks import wrong_unit
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source

SAMPLE_ROWS = 100_000


@dataclass(frozen=True)
class Sample:
    """A sample of a source.

    Attributes:
        file: that it was taken of.
        rows: how many were looked at.
        kept: how many would land.
        fields: one after the other.
        problem: what is wrong with the file as a whole; empty: nothing.
    """

    file: str
    rows: int
    kept: int
    fields: tuple[FieldSummary, ...]
    problem: str = ""


def take_sample(source: Source, rows: int = SAMPLE_ROWS) -> Sample:
    """Parse the first rows of the source's first file that has any.

    Raises:
        SourceError: there is no such file, or it cannot be read as declared.
    """
    now = datetime.now(UTC)
    with located(source) as files:
        joined = read_joined(source)
        for file in files:
            parts: list[pl.DataFrame] = []
            for _, chunk in chunks(file, source, joined=joined):
                parts.append(chunk)
                if sum(map(len, parts)) >= rows:
                    break
            if parts:
                sampled = pl.concat(parts).head(rows)
                parsed = parse(sampled, "", source, Key(b"sample" * 6), now)  # hashes are not shown
                problem = None
                if parsed.times:
                    problem = wrong_unit(source.columns.timestamp, min(parsed.times), max(parsed.times), len(sampled))
                fields = tuple(examine(sampled, source, now))
                return Sample(file.name, len(sampled), len(parsed.rows), fields, problem or "")
    return Sample(files[0].name if files else "", 0, 0, (), "no file has any rows")


def to_text(sample: Sample, source: Source) -> str:
    """The sample as a table in plain text."""
    own = source.declared.own
    rows = [("field", "of", "parsed", "missing", "refused", "distinct", "examples", "first reason")]
    for one in sample.fields:
        derived = one.name in source.declared.derived
        of = "(derived)" if derived else " + ".join(source.reading(one.name).names)
        kept = "" if one.name not in own or own[one.name].is_kept else " (not kept)"
        shown = "(hidden)" if not one.examples and one.parsed else ", ".join(one.examples)
        counts = (f"{one.parsed:,}", f"{one.missing:,}", f"{one.refused:,}", f"{one.distinct:,}")
        rows.append((one.name + kept, of, *counts, shown[:40], one.reason))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [_line(row, widths) for row in (rows[0], tuple("-" * width for width in widths), *rows[1:])]
    head = f"{sample.rows:,} rows of {sample.file}: {sample.kept:,} would land, {sample.rows - sample.kept:,} are refused."
    return "\n".join([head, "", *lines, *([f"\n{sample.problem}."] if sample.problem else [])])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    aligned = (
        text.rjust(width) if 2 <= at <= 5 else text.ljust(width) for at, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(aligned).rstrip()
