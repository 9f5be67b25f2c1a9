"""Payments of a file, and of a batch: each has the features that the pipeline computes, whatever was declared."""

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import assume, example, given, settings

from fraud_core.features import batch, catalogue
from fraud_core.fields.declared import Declared
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.sqlite import SqliteHistory
from fraud_core.models.bundle import make_bundle
from fraud_core.models.manifest import Lineage, Lookback
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.score import from_text, from_values, score_rows, score_together
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import Key
from tests.random_windows import BORDER, DECLARATIONS, FIELDS, KEPT, NEXT, PAYMENTS, SCHEMA, kept_plan, table
from tests.served_day import fitted

KEY = Key(b"k" * 32)


def scorer_of(declared: Declared) -> Scorer:
    """A scorer of all features that can be made of the random payments."""
    chosen = catalogue.catalogue_of(declared).available(SCHEMA, (), history_days=30)
    bundle = make_bundle(
        source="test",
        timezone="America/New_York",
        feature_version=catalogue.VERSION,
        **dict(fitted(chosen)),
        fallback=fitted(tuple(one for one in chosen if not one.is_history)),
        lookback=Lookback(history_days=9, label_delay_days=2),
        lineage=Lineage(training_set="test", partitions=(), card_key_id="k", libraries={}),
        declared=declared,
    )
    return Scorer(bundle)


def as_sent(payments: pl.DataFrame) -> list[dict[str, Any]]:
    """The payments as JSON has them."""
    rows = payments.drop("label", "refund", "amount_cents").with_columns(pl.col("timestamp").dt.to_string("iso:strict"))
    amounts = [f"{cents // 100}.{cents % 100:02d}" for cents in payments["amount_cents"]]
    given = [row | {"amount": amount} for row, amount in zip(rows.to_dicts(), amounts, strict=True)]
    return [{name: value for name, value in row.items() if value is not None} for row in given]


def as_text(row: dict[str, Any]) -> dict[str, str]:
    """The cells of a CSV."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}


@settings(deadline=None, max_examples=30)
@given(PAYMENTS, DECLARATIONS)
@example([BORDER, NEXT, NEXT, NEXT], Declared.model_validate({"fields": FIELDS}))
def test_rows_of_a_file_have_the_features_that_the_pipeline_computes(rows: list[Any], declared: Declared) -> None:
    scorer, raw = scorer_of(declared), table(rows)
    raw = raw.with_columns(
        pl.col("amount_cents") % 10**9, pl.Series("card", [one and hashed_card(one, KEY) for one in raw["card"]], pl.String)
    )
    scored = raw.filter(~pl.col("refund").fill_null(value=False))
    assume(len(scored))
    assert scorer.reach is not None
    past = batch.states(raw, ~raw["refund"].fill_null(value=False), scorer.plan, scorer.reach, scorer.zone)
    expected = catalogue.feature_frame(scored.hstack(past), scorer.features, scorer.zone)
    sent = as_sent(scored.with_columns(card=table(rows).filter(~pl.col("refund").fill_null(value=False))["card"]))
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteHistory(Path(folder) / "history.sqlite", KEPT, 1_000, kept_plan(scorer.plan))
        store.load(raw)
        lookup = HistoryLookup(store, KEY)
        for validate, given in ((from_values, sent), (from_text, [as_text(row) for row in sent])):
            found = score_together(scorer, [validate(row, scorer.reading, scorer.payment) for row in given], lookup).plain
            assert [json.dumps(one) for one in found] == [json.dumps(_floats(one)) for one in expected.to_dicts()]
            answers = score_rows(scorer, given, 1, validate, lookup)
            assert [one["probability"] for one in answers] == scorer.score_features(expected).tolist()
        store.close()


def _floats(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if value is None or isinstance(value, str) else float(value) for name, value in row.items()}
