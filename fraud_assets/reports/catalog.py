"""What Dagster's catalog says about every asset: its owner, the version of its code, how fresh it should be, and its columns."""

from collections.abc import Iterable
from datetime import timedelta

import dagster as dg
import polars as pl

from fraud_assets.installation import Installation
from fraud_core.features import catalogue
from fraud_core.features.feature import Feature
from fraud_core.fields import schema
from fraud_core.fields.declaration import meaning_of
from fraud_core.fields.declared import ALIASES, NOTHING, Declared
from fraud_core.intake import parsing
from fraud_core.intake import raw as raw_rules
from fraud_core.models import manifest
from fraud_core.sources.source import Source
from fraud_core.training_data import transform
from fraud_core.training_data.transform import source_features

# Raised where the rules are: whoever changes a rule changes the version there, and what it made is stale.
_RAW, _LEARNED = f"{raw_rules.VERSION}, {parsing.VERSION}", f"{transform.VERSION}, bundle {manifest.FORMAT}"
CODE_VERSIONS = {
    "landing": parsing.VERSION,
    "raw": _RAW,
    "quarantine": _RAW,
    "transformed": transform.VERSION,
    "labels": raw_rules.VERSION,
    "preprocessor": _LEARNED,
    "model": _LEARNED,
    "champion": _LEARNED,
    "history": f"features {catalogue.VERSION}",
    "served": raw_rules.VERSION,
}
FRESHNESS = {
    # The alert FraudModelStale speaks of the same 45 days.
    "champion": dg.FreshnessPolicy.time_window(fail_window=timedelta(days=45), warn_window=timedelta(days=28)),
    # Written once a day, when the first look after midnight (UTC) finds that a day is over.
    "served": dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=49), warn_window=timedelta(hours=25)),
}

_CANONICAL = {
    "transaction_id": "Id of the payment; made of the row where the source has none.",
    "timestamp": "When the payment was made, in UTC.",
    "amount_cents": "Amount in hundredths of the currency's unit.",
    "label": "Whether it was fraud, as the source says; null: not known.",
    "card": "Keyed hash of the card number or token.",
    "merchant": "Name of the merchant.",
    "category": "Merchant category.",
    "birth_date": "The cardholder's.",
    "home_latitude": "Degrees north of the cardholder's home.",
    "home_longitude": "Degrees east of the cardholder's home.",
    "merchant_latitude": "Degrees north of the merchant.",
    "merchant_longitude": "Degrees east of the merchant.",
    "city_population": "Inhabitants of the cardholder's city.",
    "refund": "Whether money came back: such a row neither trains nor is judged.",
    "split_bucket": "Bucket of the card, for splits by cardholder.",
    "source_file": "File that the row came from.",
    "source_line": "Its line in that file.",
}
_QUARANTINE = {
    "column": "Canonical column whose value was refused.",
    "reason": "Why.",
    "value": "The shape of what was there, masked.",
}
_LABELS = {
    "sequence": "Number of the label; later ones are greater.",
    "outcome": "fraud, legitimate or unsure.",
    "source": "Who says so: chargeback, analyst or the data source.",
    "author": "Name of the API key or of the analyst.",
    "role": "Role of the analyst.",
    "event_time": "When the payment was made, in UTC.",
    "known_at": "Since when the label is known; history and trainings go by it.",
}


def describe(spec: dg.AssetSpec, installation: Installation) -> dg.AssetSpec:
    """The asset's specification with what the catalog adds to it."""
    name = spec.key.path[-1]
    metadata = dict(spec.metadata)
    columns = expected_columns(installation.source, name)
    if columns:
        metadata["dagster/column_schema"] = table_schema(columns, installation.source.declared)
    return spec.replace_attributes(
        owners=[installation.settings.owner],
        code_version=CODE_VERSIONS[name],
        freshness_policy=FRESHNESS.get(name),
        metadata=metadata,
    )


def table_schema(columns: dict[str, pl.DataType], declared: Declared = NOTHING) -> dg.TableSchema:
    """Columns with their types, and what each holds."""
    features = {feature.name: _feature(feature) for feature in catalogue.catalogue_of(declared).features}
    own = {name: _own(declared, name) for name in declared.column_names}
    said = _CANONICAL | _QUARANTINE | _LABELS | features | own
    return dg.TableSchema(
        columns=[dg.TableColumn(name, str(dtype), description=said.get(name)) for name, dtype in columns.items()]
    )


def _own(declared: Declared, name: str) -> str:
    """What one of the source's own fields holds."""
    field = declared.own[name]
    meaning = meaning_of(name, field)
    unit = f", in {field.unit}" if field.unit else ""
    how = "keyed hash of a personal id" if field.personal else "derived" if field.derivation is not None else ""
    return f"{meaning} ({field.kind}{unit}{f'; {how}' if how else ''})."


def expected_columns(source: Source, asset: str) -> dict[str, pl.DataType]:
    """The columns of a table before any partition of it was made; none where the asset is no table."""
    canonical = source.columns.canonical
    match asset:
        case "raw":
            return source.raw_schema
        case "quarantine":
            return dict(schema.QUARANTINE_SCHEMA)
        case "transformed":
            raw = schema.raw_schema([*canonical, "label"])
            carried = {name: raw[name] for name in transform.CARRIED if name in raw}
            return carried | {feature.name: feature.dtype for feature in source_features(source)}
        case _:
            return {}


def column_lineage(source: Source, asset: str, columns: Iterable[str]) -> dg.TableColumnLineage | None:
    """Of which columns before it each column is made: of the source's own, by their names in its files, or of raw's."""
    match asset:
        case "raw":
            made_of = {name: _declared(source, name) for name in columns}
            before = "landing"
        case "transformed":
            raw = source.raw_schema
            known = catalogue.catalogue_of(source.declared).by_name
            made_of = {name: [of for of in _needs(name, known.get(name)) if of in raw] for name in columns}
            before = "raw"
        case _:
            return None
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(dg.AssetKey(before), column) for column in of] for name, of in made_of.items() if of}
    )


def _declared(source: Source, name: str) -> list[str]:
    """Columns of the source's files that a column of raw is read from, or derived of."""
    derived = source.declared.derived.get(name)
    if source.simulator is not None or not (derived is not None or name in source.given):
        return []
    if derived is None or derived.derivation is None:
        return list(source.reading(name).names)
    needs = (ALIASES.get(needed, needed) for needed in derived.derivation.needs)
    return list(dict.fromkeys(column for needed in needs for column in _declared(source, needed)))


def _needs(name: str, feature: Feature | None) -> list[str]:
    """Columns of raw that a column of transformed is made of."""
    if feature is None:
        return ["card"] if name == "split_bucket" else [name]
    needs = set(feature.needs)
    if feature.is_history:
        needs.add("timestamp")
    needs |= {"label" for tally in feature.tallies if tally.kind == "frauds"}
    needs |= {tally.over for tally in feature.tallies if tally.over is not None}
    return sorted(needs)


def _feature(feature: Feature) -> str:
    return f"{'Category' if feature.is_category else 'Feature'}: {feature.unit}; null: missing."
