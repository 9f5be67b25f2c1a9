"""One cell is one value, or refused for one reason: in a source's file, over HTTP, in a scored file, from the typed client."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr, ValidationError

import fraud_client.types
from fraud_core.intake.files import LINE
from fraud_core.intake.parsing import parse
from fraud_core.scoring.file_parsing import PROBLEM, FileFormat, Wanted, pieces
from fraud_core.scoring.score import from_text, from_values
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source
from fraud_core.transactions.declared_type import transaction_type
from fraud_core.transactions.refusals import wrong_fields

KEY = Key(b"c" * 32)
FIELDS: dict[str, dict[str, Any]] = {
    "basket": {"kind": "number", "unit": "items", "lowest": 0, "highest": 1000, "missing": ["-1", "NA"]},
    "least": {"kind": "number", "lowest": -2.5},
    "most": {"kind": "number", "highest": 2.5},
    "channel": {"kind": "category", "values": ["web", "7"], "missing": ["none"]},
    "name": {"kind": "category"},
    "cvv": {"kind": "flag", "values": {"true": ["M", "1"], "false": ["N", "n/a"]}, "missing": ["?", "U"]},
    "odd": {"kind": "flag", "values": {"true": ["false"], "false": ["none"]}},
    "vip": {"kind": "flag"},
    "opened": {"kind": "time", "formats": ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%.f%#z"], "missing": ["0000-00-00"]},
    "device": {"kind": "id", "missing": ["unknown"]},
    "mail": {"kind": "id", "personal": True, "missing": ["-"]},
}
SOURCE = Source.model_validate(
    {
        "name": "shop",
        "paths": ["x.csv"],
        "timezone": "Europe/Zurich",
        "cadence": "monthly",
        "first": "2024-01",
        "label_delay_days": 1,
        "columns": {"timestamp": {"column": "timestamp", "formats": ["%Y-%m-%dT%H:%M:%S%#z"]}, "amount": "amount"},
        "fields": FIELDS,
    }
)
PAYMENT = transaction_type(SOURCE.declared, SOURCE.timezone)
GIVEN = {"timestamp": "2024-03-05T10:20:30Z", "amount": "1"}
CARD = "4111111111111111"
TEXTS: dict[str, list[str]] = {
    "basket": ["3", " 3.0 ", "1e2", "+0.5", "-1", "-1.0", "NA", "na", "NaN", "nan", "null", "inf", "1001", "-0.1", "many",
               "1,5", "1_0", "٣", "true", ""],
    "least": ["-2.5", "-2.6", "1e300", "1e999", ".5", "5."],
    "most": ["2.5", "2.6", "-1e300"],
    "channel": ["web", " web ", "7", "7.0", "none", "None", "fax", "WEB", "NA", ""],
    "name": ["x", "NA", "null", "True", "TRUE", "7.0", "4.5E+15", "a\x07b", "x" * 201, CARD, "4111 1111 1111 1111", " ", "é"],
    "cvv": ["M", "m", "1", "1.0", "N", "N/A", "n/a", "?", "u", "U", "true", "True", "FALSE", "yes", "0", "2", "", "null"],
    "odd": ["false", "False", "true", "none", "None", "0"],
    "vip": ["1", "0.0", "YES", "f", "True", "on", "null", "NA", "2", ""],
    "opened": ["2024-02-29", "2023-02-29", "2024-02-29T01:02:03Z", "2024-02-29T01:02:03.25+01:00", "0000-00-00",
               "29.02.2024", "2024-02-29T01:02:03", "", "NA"],
    "device": ["d-7", "unknown", "Unknown", "007", "7.0", CARD, "x" * 201, "1e5", "4.5E+15", ""],
    "mail": ["Ada@x.org", "-", CARD, "x" * 201, "a\x07b", "7.0", ""],
}  # fmt: skip
TYPED: dict[str, list[Any]] = {
    "basket": [3, 3.0, -1, -1.0, 1001.5, True],
    "channel": [7, 7.0, True],
    "name": [True, 7, 7.5, 1e300, 4111111111111111],
    "cvv": [True, False, 1, 1.0, 0, 2],
    "odd": [True, False],
    "vip": [True, False, 1, 0, 2, 1.0, 0.5],
    "device": [True, 7, 7.0, 4111111111111111],
    "mail": [7, 7.0],
}
CELLS = [(name, cell) for cells in (TEXTS, TYPED) for name, some in cells.items() for cell in some]


def landed(name: str, cell: Any) -> Any:
    """As a source's file has it: text, or typed as Parquet."""
    columns = {
        other: pl.Series([cell if other == name else None], dtype=None if other == name else pl.String) for other in FIELDS
    }
    chunk = pl.DataFrame({**{one: [said] for one, said in GIVEN.items()}, **columns, LINE: [2]})
    found = parse(chunk, "x.csv", SOURCE, KEY)
    if len(found.refused):
        refused = found.refused.row(0, named=True)
        assert refused["column"] == name, refused
        return f"refused: {refused['reason']}"
    return found.rows[name].item()


def _told(name: str, validate: Any, given: Any) -> Any:
    try:
        value = getattr(validate(given), name)
    except ValidationError as error:
        (problem,) = wrong_fields(error)
        assert problem.field == name
        return f"refused: {problem.reason}"
    return hashed_card(value.get_secret_value(), KEY) if isinstance(value, SecretStr) else value


def over_http(name: str, cell: Any) -> Any:
    """As JSON."""
    return _told(name, PAYMENT.model_validate_json, json.dumps(GIVEN | {name: cell}))


def by_client(name: str, cell: Any) -> Any:
    """From the typed client, which sends JSON."""
    sent = fraud_client.types.Transaction(timestamp=datetime(2024, 3, 5, tzinfo=UTC), amount="1", own={name: cell})
    return _told(name, PAYMENT.model_validate_json, json.dumps(sent.to_json()))


def in_file(name: str, cell: Any) -> Any:
    """In a file that is scored: CSV, or typed as Parquet."""
    kind: FileFormat = "csv" if isinstance(cell, str) else "parquet"
    frame, binary = pl.DataFrame({**GIVEN, name: [cell]}), io.BytesIO()
    frame.write_csv(binary) if kind == "csv" else frame.write_parquet(binary)
    binary.seek(0)
    told = list(pieces(binary, kind, Wanted.of(PAYMENT)))
    if told[-1].state == "failed":
        return f"refused: {told[-1].detail} {told[-1].errors}"
    ((_, row),) = [one for piece in told for one in piece.rows]
    if PROBLEM in row:
        return f"refused: {row[PROBLEM]['reason']}"
    return _told(name, lambda given: (from_text if kind == "csv" else from_values)(given, None, PAYMENT), row)


def as_told(found: Any, name: str) -> str:
    """What is compared: flags and numbers are told apart, and minus zero from zero.

    How a time is written is a matter of the way in, so its reasons differ; and what is advised behind a reason does.
    """
    if isinstance(found, str) and found.startswith("refused: "):
        return "refused" if name == "opened" else found.partition(";")[0]
    return repr(found.astimezone(UTC) if isinstance(found, datetime) else found)


@pytest.mark.parametrize(("name", "cell"), CELLS, ids=[f"{name}-{str(cell)[:24]!r}" for name, cell in CELLS])
def test_a_cell_is_the_same_value_or_refused_for_the_same_reason_on_every_way_in(name: str, cell: Any) -> None:
    found = {way.__name__: as_told(way(name, cell), name) for way in (landed, over_http, in_file, by_client)}
    assert len(set(found.values())) == 1, found
