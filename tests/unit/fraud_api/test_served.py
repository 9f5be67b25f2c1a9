"""What was scored online comes back as a source: from the API to raw, each payment once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from fraud_core.history.export import export
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.intake.landing import land, partition_keys
from fraud_core.intake.raw import build_raw
from fraud_core.signing.keys import card_key
from fraud_core.sources.source import load_source
from fraud_core.storage.artifacts import Artifacts
from fraud_core.transactions.transaction import Transaction
from tests.history_store import REACH

SERVED = Path(__file__).parents[3] / "sources" / "served.toml"
Make = Callable[[int], list[dict[str, Any]]]


def test_what_was_scored_is_in_raw_and_nothing_else(
    call: Any, installation: Any, made_transactions: Make, tmp_path: Path
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    sent = made_transactions(60)
    sent = [one | {"timestamp": f"2020-0{1 + at % 3}-21T12:14:25.{at:06d}Z"} for at, one in enumerate(sent)]
    sent.sort(key=lambda one: str(one["timestamp"]))
    folder = tmp_path / "served"
    for begin in (0, 20, 40):
        answers = [api.post("/v1/score", json=one) for one in sent[begin : begin + 20]]
        answers += [api.post("/v1/score", json=sent[begin])]
        assert {answer.status_code for answer in answers} == {200}
        export(api.app.state.services.history.store, folder)
    files = sorted(folder.iterdir())
    assert [file.name.split("-")[2] for file in files] == [f"{first:015d}" for first in (1, 21, 41)]
    decisions = {one["transaction_id"]: api.post("/v1/score", json=one).json()["decision"] for one in sent}
    exported = pl.concat([pl.read_parquet(file) for file in files])
    assert exported["sequence"].to_list() == list(range(1, 61))
    assert dict(exported.select("transaction_id", "declined").iter_rows()) == {
        one: decision == "decline" for one, decision in decisions.items()
    }

    source, key = load_source(SERVED, (str(folder / "*.parquet"),)), card_key(installation.settings)
    artifacts = Artifacts(installation.store, installation.key)
    landing = land(source, artifacts.store, key, None)
    made = [build_raw(source, landing, month, artifacts.store, key) for month in partition_keys(source, landing)]
    assert [len(one.quarantine.frame) for one in made] == [0, 0, 0]
    raw = pl.concat([one.rows.frame for one in made])
    assert "label" not in raw.columns
    lookup = HistoryLookup(open_history(installation.settings, REACH), key)
    for given, row in zip(sent, raw.iter_rows(named=True), strict=True):
        wanted = Transaction.model_validate(given)
        assert row["card"] == lookup.card(wanted)
        for name in set(Transaction.model_fields) - {"card"}:
            assert row[name] == getattr(wanted, name), name
    assert raw["birth_date"].dtype == pl.Date
