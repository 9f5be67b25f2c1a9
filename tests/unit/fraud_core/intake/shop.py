"""A source whose columns have names and habits of their own, and files for it."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fraud_core.intake.files import SourceFile, chunks
from fraud_core.intake.landing import Landing, land
from fraud_core.intake.parsing import Parsed, parse
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source
from fraud_core.storage.directory import DirectoryStore

CARD_KEY = Key(b"c" * 32)
CARD = "4111111111111111"
COLUMNS: dict[str, Any] = {
    "transaction_id": "id",
    "timestamp": {"column": "when", "formats": ["%Y-%m-%d %H:%M:%S"]},
    "amount": "sum",
    "label": {"column": "outcome", "fraud": "F", "legitimate": "L", "repair": "^([FL])!"},
    "card": "pan",
    "merchant": {"column": "shop", "strip": '"'},
    "category": "kind",
    "birth_date": {"column": "born", "formats": ["%d.%m.%Y"]},
    "home_latitude": "lat",
    "home_longitude": "long",
    "merchant_latitude": "shop_lat",
    "merchant_longitude": "shop_long",
    "city_population": "people",
}
ROW = {
    "id": "t1",
    "when": "2024-03-05 10:20:30",
    "sum": "12.34",
    "outcome": "L",
    "pan": CARD,
    "shop": "Corner shop",
    "kind": "grocery",
    "born": "29.02.1980",
    "lat": "47.37",
    "long": "8.54",
    "shop_lat": "47.4",
    "shop_long": "8.6",
    "people": "400000",
}


@dataclass(frozen=True)
class Intake:
    """A folder for files, and a store."""

    folder: Path
    store: DirectoryStore

    def source(self, *paths: str, **changes: Any) -> Source:
        """The source; anything may be declared otherwise. Paths are relative to the folder."""
        declared = {
            "name": "shop",
            "paths": [str(self.folder / path) for path in paths or ("*.csv",)],
            "timezone": "Europe/Zurich",
            "cadence": "monthly",
            "first": "2024-01",
            "last": "2024-12",
            "label_delay_days": 7,
            "columns": COLUMNS,
        }
        return Source.model_validate(declared | changes)

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def rows(self, *changes: Mapping[str, str], name: str = "a.csv") -> Path:
        """A CSV file with a row for each of the changes to the ordinary row; ids are numbered unless given."""
        return self.write(name, csv_text(*changes))

    def land(self, source: Source, previous: Landing | None = None, key: Key = CARD_KEY) -> Landing:
        """Land the source's files."""
        return land(source, self.store, key, previous)


def csv_text(*changes: Mapping[str, str]) -> str:
    """The ordinary row with each of the changes, as CSV with a header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(ROW), lineterminator="\n")
    writer.writeheader()
    for number, change in enumerate(changes, start=1):
        writer.writerow(ROW | {"id": f"t{number}"} | change)
    return buffer.getvalue()


def read(path: Path, source: Source) -> pl.DataFrame:
    """All rows of a file as its chunks hold them."""
    return pl.concat([chunk for _, chunk in chunks(SourceFile(str(path), path, "", 0), source)])


def parsed(path: Path, source: Source, key: Key = CARD_KEY) -> Parsed:
    """A small file, parsed."""
    return parse(read(path, source), path.name, source, key)
