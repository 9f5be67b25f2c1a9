"""What is scored with own fields in several currencies comes back: features of training are the served ones, to the last bit."""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_core.decisions.log import DecisionLog
from fraud_core.features import catalogue
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.fields.declared import REFUND
from fraud_core.history.export import export
from fraud_core.intake.landing import land
from fraud_core.intake.raw import build_raw
from fraud_core.models.bundle import Bundle, Fitted, make_bundle
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Thresholds
from fraud_core.review.retest import Starting, score_again
from fraud_core.signing.keys import canonical_json, card_key
from fraud_core.sources import partitions
from fraud_core.sources.money import RateTable
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.artifacts import Artifacts
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.training_data.transform import build_transformed, source_features
from fraud_ui.views import case
from tests.unit.fraud_api.test_served import SERVED

ONLINE = """
name = "shop"
paths = ["payments.csv"]
timezone = "Europe/Zurich"
cadence = "monthly"
first = "2024-01"
label_delay_days = 1
history_days = 20
currency = { column = "cur", base = "EUR", rates = "rates.csv" }
windows = [
  { of = "device", measure = ["count", "distinct"], over = "card", spans = ["1h", "7d"] },
  { of = "email", measure = ["sum", "std"], over = "amount", spans = ["7d"] },
  { of = "card", measure = "count", where = { refund = [true] }, spans = ["7d"] },
  { of = "card", measure = "count", where = { refund = [false], currency = ["USD"] }, spans = ["7d"] },
  { of = "network", measure = "share", over = "cvv", spans = ["1d"] },
  { of = "bin", measure = "mean", over = "account_age", spans = ["7d"] },
]
[columns]
timestamp = { column = "when", formats = ["%Y-%m-%dT%H:%M:%S%.f%#z"] }
amount = { column = "sum", negative = "refund" }
transaction_id = "id"
card = "pan"
merchant = { column = "shop", digits = 18 }
category = "kind"
[fields.device]
kind = "id"
column = "dev"
digits = 16
[fields.ip]
kind = "id"
personal = true
[fields.email]
kind = "id"
personal = true
[fields.income]
kind = "number"
personal = true
[fields.channel]
kind = "category"
values = ["web", "app"]
missing = ["-"]
[fields.cvv]
kind = "flag"
values = { true = ["M"], false = ["N"] }
[fields.opened]
kind = "time"
formats = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%.f%#z"]
[fields.basket]
kind = "number"
lowest = -5
highest = 1000
[fields.email_domain]
from = { part = "domain", of = "email" }
[fields.bin]
kind = "id"
from = { first_digits = 6, of = "card" }
[fields.network]
kind = "id"
from = { network = "24/48", of = "ip" }
[fields.account_age]
from = { hours_since = "opened" }
[fields.over_income]
from = { difference = ["amount", "income"] }
[fields.same]
from = { equal = ["ip", "email"] }
"""
BEGIN = datetime(2024, 3, 1, tzinfo=timezone(timedelta(hours=1)))
DAYS = [f"2024-03-{day:02d}" for day in range(1, 30)]
RATES = "date,currency,rate\n" + "".join(
    f"{day},USD,{0.91 + at / 977}\n{day},JPY,{0.0061 + at / 1e6}\n{day},KWD,{2.9871 + at / 997}\n" for at, day in enumerate(DAYS)
)


def source_in(folder: Path) -> Source:
    (folder / "rates.csv").write_text(RATES)
    (folder / "online.toml").write_text(ONLINE)
    return load_source(folder / "online.toml")


def bundle_of(source: Source) -> Bundle:
    """A model that looks at every feature of the source."""

    def fitted(features: tuple[catalogue.Feature, ...]) -> Fitted:
        document = {"coefficients": [0.01] * len(features), "intercept": -2.0, "means": [0.0] * len(features)}
        encoder = Encoder(
            columns=tuple(
                ColumnEncoding(feature=one.name, categories={"web": 1.0}, unseen=0.0)
                if one.is_category
                else ColumnEncoding(feature=one.name, missing=0.0)
                for one in features
            )
        )
        calibration, thresholds = Calibration(slope=1.0, intercept=0.0), Thresholds(review=0.4, decline=0.8)
        model = canonical_json(document)
        return Fitted(kind="linear", model=model, encoder=encoder, calibration=calibration, thresholds=thresholds)

    features = source_features(source)
    lineage = Lineage(training_set="test", partitions=(), card_key_id="test", libraries={"numpy": "2"}, digits={**source.digits})
    return make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=catalogue.VERSION,
        declared=source.declared,
        lineage=lineage,
        lookback=Lookback(history_days=source.history_days, label_delay_days=source.label_delay_days),
        fallback=fitted(tuple(one for one in features if not one.is_history)),
        **dict(fitted(features)),
    )


def payments(count: int) -> list[dict[str, Any]]:
    """Payments of March, every eleventh a refund; a few own fields are missing in some."""
    rng = np.random.default_rng(5)
    made = []
    for at in range(count):
        currency = str(rng.choice(["EUR", "USD", "JPY", "KWD"]))
        decimals = {"JPY": 0, "KWD": 3}.get(currency, 2)
        amount = f"{rng.uniform(1, 900):.{decimals}f}"
        when = BEGIN + at // 3 * timedelta(hours=18) + at % 3 * timedelta(minutes=20) + timedelta(microseconds=at)
        given: dict[str, Any] = {
            "transaction_id": f"t{at}",
            "timestamp": when.isoformat(),
            "amount": float(amount) if at % 3 else amount,
            "currency": currency,
            "card": f"40001234567890{rng.integers(10, 14)}",
            "merchant": 411111111111111100 + int(rng.integers(0, 3)) * 10,
            "category": "food",
            "device": f"411111111111111{rng.integers(0, 3)}" if at % 5 else f"till {at}",
            "ip": f"198.51.100.{rng.integers(0, 3)}",
            "email": f"Jane{rng.integers(0, 4)}@Mail.Example.org",
            "income": float(rng.integers(1_000, 9_000)),
            "channel": ["web", "app", "-", None][at % 4],
            "cvv": [True, "N", "m", False, None][at % 5],
            "opened": f"2023-11-0{1 + at % 9}T00:00:00.{at:06d}Z" if at % 2 else f"2024-01-0{1 + at % 9}",
            "basket": [3, "0.1", -4.75, 1e-7, "-0", None][at % 6],
        }
        made.append({name: value for name, value in given.items() if value is not None and (at % 7 or name != "email")})
    return made


COLUMNS = {
    "transaction_id": "id", "timestamp": "when", "amount": "sum", "currency": "cur", "card": "pan", "merchant": "shop",
    "category": "kind", "device": "dev",
}  # fmt: skip


def as_file(sent: Mapping[str, Any]) -> dict[str, str | None]:
    """A payment or refund that was sent, as a row of the source's own file."""
    texts = {True: "M", False: "N"}
    row = {COLUMNS.get(name, name): texts[value] if isinstance(value, bool) else str(value) for name, value in sent.items()}
    return {name: row.get(name) for name in [*COLUMNS.values(), *OWN]}


OWN = ("ip", "email", "income", "channel", "cvv", "opened", "basket")


def trained_on(source: Source, artifacts: Artifacts, key: Any) -> pl.DataFrame:
    """The features of March."""
    landing = land(source, artifacts.store, key, None)
    for month in partitions.key_range(source.first, "2024-03", source.cadence):
        made = build_raw(source, landing, month, artifacts.store, key)
        assert made.quarantine.frame.is_empty(), made.quarantine.frame
        artifacts.write("raw", month, made.rows)
    artifacts.write("transformed", "2024-03", build_transformed(source, artifacts, "2024-03"))
    return artifacts.scan("transformed", "2024-03").collect()


def test_features_of_training_are_those_that_were_served(call: Any, installation: Any, tmp_path: Path) -> None:
    source = source_in(tmp_path)
    bundle = bundle_of(source)
    installation.write(bundle)
    installation.point(bundle.version)
    # The table of rates is the one that the TOML names.
    settings = installation.settings.model_copy(update={"source": tmp_path / "online.toml", "features_logged": 1.0})
    api = call(settings)
    refunds, folder = 0, tmp_path / "exported"
    file: list[dict[str, str | None]] = []
    for at, one in enumerate(payments(110)):
        is_refund = at % 11 == 10
        sent = {**one, "amount": -float(one["amount"])} if is_refund and at % 2 else one
        answer = api.post("/v1/refunds" if is_refund else "/v1/score", json=sent)
        assert answer.status_code == 200, answer.text
        refunds += is_refund
        file.append(as_file({**one, "amount": -float(one["amount"])} if is_refund else one))
        if at % 20 == 9:  # as every day: a store keeps payments for as long as features look back
            export(api.app.state.services.history.store, folder, source.declared)

    toml = re.sub(r'served_from = ".*"', 'served_from = "online.toml"', SERVED.read_text()).replace("2019-01", "2024-02")
    (tmp_path / "served.toml").write_text(toml)
    served = load_source(tmp_path / "served.toml", (str(folder / "*.parquet"),))
    assert Source.model_validate(served.model_dump(mode="json")) == served
    assert served.declared == source.declared  # what is trained from here is served there
    artifacts, key = Artifacts(installation.store, installation.key), card_key(settings)
    rows = trained_on(served, artifacts, key)
    raw = artifacts.scan("raw", "2024-03").collect()
    assert (len(raw), raw[REFUND].sum()) == (110, refunds)
    assert raw.filter(pl.col("email").is_not_null())["email"].str.contains("^[0-9a-f]{32}$").all()
    names = [feature.name for feature in source_features(source)]
    assert [feature.name for feature in source_features(served)] == names
    # The same payments, as the source's own file has them.
    pl.DataFrame(file).write_csv(tmp_path / "payments.csv")
    landed = trained_on(source, Artifacts(DirectoryStore(tmp_path / "another"), installation.key), key)
    log = DecisionLog(open_database(settings), 400)
    differing = {}
    for row in (*rows.iter_rows(named=True), *landed.iter_rows(named=True)):
        found = log.find(row["transaction_id"])
        assert found is not None
        assert found.features is not None
        assert row["amount_cents"] == found.transaction.amount_cents
        wrong = {n: (row[n], found.features[n]) for n in names if bits(row[n]) != bits(found.features[n])}
        differing |= {row["transaction_id"]: wrong} if wrong else {}
    assert differing == {}
    assert len(landed) == len(rows)
    assert len(rows) == 110 - refunds
    counted = rows["card_count_refund_true_7d"]
    assert counted.sum() > 0  # the window over refunds has seen some
    assert rows["over_income"].null_count() == 0


def test_the_table_of_rates_is_told_and_read_anew_and_without_one_only_the_base_currency_is_taken(
    call: Any, installation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RateTable, "LOOK_SECONDS", 0.0)
    bundle = bundle_of(source_in(tmp_path))
    installation.write(bundle)
    installation.point(bundle.version)
    sent = {**payments(3)[1], "timestamp": "2024-03-30T12:00:00Z", "amount": "10"}

    def said(api: Any) -> Any:
        return api.get("/v1/model").json()["amounts"]

    def answered(api: Any, currency: str, identity: str) -> Any:
        return api.post("/v1/score", json=sent | {"currency": currency, "transaction_id": identity}).status_code

    alone = call(installation.settings.model_copy(update={"source": tmp_path / "not-here.toml"}))
    assert said(alone) == {
        "currency": "EUR",
        "by": "currency",
        "negative": "refund",
        "decimals": "exact",
        "rates": "not-here.toml cannot be read here; name the table of rates by FRAUD_RATES. "
        "Payments in other currencies are refused.",
    }
    assert (answered(alone, "EUR", "a"), answered(alone, "USD", "b")) == (200, 422)
    api = call(installation.settings.model_copy(update={"rates": tmp_path / "rates.csv", "features_logged": 1.0}))
    assert said(api)["rates"] == "rates.csv has rates of JPY, KWD, USD, the newest of 2024-03-29."
    assert answered(api, "USD", "c") == 422
    (tmp_path / "rates.csv").write_text(RATES + "2024-03-30,USD,0.9\n")
    assert answered(api, "USD", "c") == 200
    found = DecisionLog(open_database(installation.settings), 400).find("c")
    assert found is not None
    assert (found.transaction.amount_cents, found.transaction.own["currency"]) == (900, "USD")
    served = api.app.state.services.follower.served
    again = case.logged_form(found, served.scorer.zone, served)  # as the desk loads it: in the base currency, converted once
    assert (again.amount, {row[0]: row[1] for row in again.own}[case.label_of("currency", served.scorer.declared)]) == (
        9.0,
        "EUR",
    )
    assert case.typed_payment(again, served.scorer.zone, served.scorer.reading, served.payment()).amount_cents == 900
    starting = Starting(found, case.logged_payment(found, served.payment()))
    scored = score_again(starting, served.scorer, [starting.transaction], api.app.state.services.lookup)
    assert scored.probabilities.tolist() == [found.probability]
    # What was read before stays, and is said, where the file cannot be read any more.
    (tmp_path / "rates.csv").write_text("nonsense")
    assert answered(api, "USD", "d") == 200
    assert said(api)["rates"].endswith("rates.csv cannot be read; the log has more.")


def bits(value: Any) -> str:
    return json.dumps(float(value) if isinstance(value, (bool, int, float)) else value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"currency": "CHF"}, {"amount": "is in a currency without rates; there are EUR, JPY, KWD, USD"}),
        ({"currency": None}, {"currency": "is missing"}),
        ({"timestamp": "2024-03-30T12:00:00Z"}, {"amount": "has no rate of its currency for its day"}),
        # In Zurich it is the day before the first rate already over: by the source's clocks, not by those of the caller.
        ({"timestamp": "2024-02-29T22:59:59Z"}, {"amount": "has no rate of its currency for its day"}),
        ({"timestamp": "2024-02-29T23:00:00Z"}, {}),
        ({"amount": 10.005}, {"amount": "is not an amount with the decimals of its currency"}),
        ({"amount": -1}, {"amount": "is below zero: a refund, which is not scored; send it to POST /v1/refunds"}),
        ({"amount": 0.5, "currency": "JPY"}, {"amount": "is not an amount with the decimals of its currency"}),
    ],
)
def test_an_amount_that_cannot_be_read_is_refused_on_every_route_with_a_sentence(
    call: Any, installation: Any, tmp_path: Path, change: Mapping[str, Any], says: Mapping[str, str]
) -> None:
    bundle = bundle_of(source_in(tmp_path))
    installation.write(bundle)
    installation.point(bundle.version)
    api = call(installation.settings.model_copy(update={"rates": tmp_path / "rates.csv"}))
    sent = {**payments(3)[1], "currency": "USD", "amount": 12.5, "cvv": "M"} | dict(change)
    alone = api.post("/v1/score", json=sent)
    (row,) = api.post("/v1/score/batch", json={"transactions": [sent]}).json()["results"]
    table = pl.DataFrame([{name: "" if value is None else str(value) for name, value in sent.items()}])
    file = api.post("/v1/score/file", content=table.write_csv().encode(), headers={"Content-Type": "text/csv"})
    of_file = json.loads(file.text.splitlines()[0])
    if not says:
        assert alone.status_code == 200, alone.text
        assert row["probability"] == of_file["probability"] == alone.json()["probability"]
        return
    assert alone.status_code == 422
    for errors in (alone.json()["errors"], row["errors"], of_file["errors"]):
        told = {one["field"]: one["reason"].partition(" (it is written")[0] for one in errors}
        assert told == says
