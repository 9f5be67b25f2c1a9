"""What signals of payments tell of fraud in `sources/simulated_online.toml`: each alone, and a model that learns from all.

`python bench/signals.py` prints the tables of docs/simulator.md. What it measures is made here by hand, with Polars alone, and by
no engine of features: signals of a payment, and measures of what its device, network, e-mail, BIN and card did strictly before.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from fraud_core.simulator.config import ONLINE_KINDS, SimulatorConfig
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.partitions import Cadence, window

SOURCE = Path(__file__).parents[1] / "sources" / "simulated_online.toml"
_SPANS = ("1h", "1d", "7d", "30d")
_REMOTE = pl.col("channel") != "pos"
_BAD_CHECK, _DECLINED = pl.col("cvv") == "N", pl.col("authorised") == "declined"


@dataclass(frozen=True)
class Told:
    """How well one signal orders payments, most suspicious first, in whichever direction tells more.

    Attributes:
        signal: its name.
        precision: average precision against all fraud.
        of_kind: against one kind of fraud and legitimate payments alone.
    """

    signal: str
    precision: float
    of_kind: dict[str, float]


def derived(simulated: pl.DataFrame) -> pl.DataFrame:
    """Simulated payments with the derived fields that the TOML declares; refunds are left out, for nobody scores them."""
    return simulated.filter(pl.col("amount_cents") > 0).with_columns(
        bin=pl.col("card").str.head(6),
        network=pl.col("ip").str.extract(r"^(\d+\.\d+\.\d+)\."),
        email_domain=pl.col("email").str.extract(r"@(.*)$"),
        account_hours=(pl.col("timestamp") - pl.col("account_opened")).dt.total_seconds() / 3_600,
        same_country=pl.col("billing_country") == pl.col("shipping_country"),
        dollars=pl.col("amount_cents") / pl.col("currency").replace_strict({"USD": 100, "EUR": 92, "JPY": 15_000}),
    )


def signals_of(payments: pl.DataFrame) -> pl.DataFrame:
    """One column a signal; whether high or low is suspicious is not said. A category counts by the fraud it has."""
    rate = {name: pl.col("label").mean().over(name) for name in ("channel", "three_ds", "email_domain", "billing_country", "bin")}
    online = pl.when(_REMOTE)
    own = payments.select(
        amount="dollars",
        hour=pl.col("timestamp").dt.convert_time_zone("America/New_York").dt.hour(),
        foreign_currency=pl.col("currency") != "USD",
        failed_cvv=_BAD_CHECK,
        no_cvv=pl.col("cvv").is_null() & _REMOTE,
        declined=_DECLINED,
        other_country=~pl.col("same_country"),
        account_age="account_hours",
        new_account=pl.col("account_hours") < 24 * 7,
        new_card=pl.col("card").is_first_distinct(),
        device_cards_1d_online=online.then(_before("device", pl.col("card").n_unique(), "1d")),
        device_emails_1d=_before("device", pl.col("email").drop_nulls().n_unique(), "1d"),
        bin_declined_1h=_before("bin", _DECLINED.sum(), "1h"),
        network_cards_7d=_before("network", pl.col("card").n_unique(), "7d"),
        network_devices_1d=_before("network", pl.col("device").n_unique(), "1d"),
        ip_cards_1h=_before("ip", pl.col("card").n_unique(), "1h"),
        email_count_7d=_before("email", pl.len(), "7d"),
        card_emails_7d=_before("card", pl.col("email").drop_nulls().n_unique(), "7d"),
        **rate,
    )
    return own.hstack(windows_of(payments))


def told_by(payments: pl.DataFrame) -> list[Told]:
    """Each signal's average precision, the best first."""
    label, kind = payments["label"].to_numpy(), payments["kind"].fill_null("")
    parts = {one.value: (kind.is_in(["", one.value])).to_numpy() for one in ONLINE_KINDS}
    found = []
    for column in signals_of(payments).cast(pl.Float64).iter_columns():
        # Where there is no value, there is the least of suspicion in either direction.
        of_kind = {name: _best(label[part], column.filter(pl.Series(part))) for name, part in parts.items()}
        found.append(Told(column.name, _best(label, column), of_kind))
    return sorted(found, key=lambda one: -one.precision)


def usual_of(payments: pl.DataFrame) -> pl.DataFrame:
    """What can be known without any signal: amount, time, category, place, and what card and merchant did before."""
    local = pl.col("timestamp").dt.convert_time_zone("America/New_York")
    north, east = (pl.col(f"home_{way}") - pl.col(f"merchant_{way}") for way in ("latitude", "longitude"))
    return payments.select(
        "dollars",
        "city_population",
        hour=local.dt.hour(),
        weekday=local.dt.weekday(),
        category=pl.col("category").rank("dense"),
        distance=(north**2 + (east * 0.77) ** 2).sqrt(),
        **{f"card_count_{span}": _before("card", pl.len(), span) for span in _SPANS},
        **{f"card_sum_{span}": _before("card", pl.col("dollars").sum(), span) for span in _SPANS},
        card_merchants=_before("card", pl.col("merchant").n_unique(), "1d"),
        since_last=pl.col("timestamp").diff().over("card").dt.total_seconds(),
        merchant_new=pl.struct("card", "merchant").is_first_distinct(),
        **{f"merchant_count_{span}": _before("merchant", pl.len(), span) for span in ("1d", "7d")},
    )


def fields_of(payments: pl.DataFrame) -> pl.DataFrame:
    """What the payment's own fields say."""
    names = ("channel", "three_ds", "cvv", "email_domain", "billing_country")
    return payments.select(*(pl.col(name).rank("dense") for name in names), "same_country", "account_hours")


def windows_of(payments: pl.DataFrame) -> pl.DataFrame:
    """The windows that the TOML declares."""
    age = {of: (pl.col("timestamp") - pl.col("timestamp").first().over(of)).dt.total_seconds() for of in ("device", "email")}
    seen = {two: pl.struct(two, "card").is_first_distinct() for two in ("device", "email")}
    return payments.select(
        device_cards_1h=_before("device", pl.col("card").n_unique(), "1h"),
        device_cards_1d=_before("device", pl.col("card").n_unique(), "1d"),
        device_networks_1d=_before("device", pl.col("network").n_unique(), "1d"),
        device_count_1d=_before("device", pl.len(), "1d"),
        device_since=age["device"],
        device_new=seen["device"],
        card_devices_7d=_before("card", pl.col("device").n_unique(), "7d"),
        card_declined_1d=_before("card", _DECLINED.sum(), "1d"),
        bin_failed_cvv_10m=_before("bin", _BAD_CHECK.sum(), "10m"),
        bin_failed_cvv_1h=_before("bin", _BAD_CHECK.sum(), "1h"),
        bin_cards_10m=_before("bin", pl.col("card").n_unique(), "10m"),
        bin_count_10m=_before("bin", pl.len(), "10m"),
        bin_count_1h=_before("bin", pl.len(), "1h"),
        bin_cvv_share_1h=_before("bin", (~_BAD_CHECK).mean(), "1h"),
        network_emails_1d=_before("network", pl.col("email").drop_nulls().n_unique(), "1d"),
        network_emails_7d=_before("network", pl.col("email").drop_nulls().n_unique(), "7d"),
        network_account_age_7d=_before("network", pl.col("account_hours").mean(), "7d"),
        email_cards_7d=_before("email", pl.col("card").n_unique(), "7d"),
        email_since=age["email"],
        email_new=seen["email"],
    )


def recalls(payments: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Average precision, and recall of each kind at as many alerts as there are frauds, of a model by what it learns from.

    It learns from January to August and is judged from October on.
    """
    label, kind = payments["label"].to_numpy(), payments["kind"].fill_null("").to_numpy()
    month = payments["timestamp"].dt.convert_time_zone("America/New_York").dt.month().to_numpy()
    train, test = month <= 8, month >= 10
    found, features = {}, usual_of(payments)
    for name, more in {"usual": None, "and fields": fields_of, "and windows": windows_of}.items():
        features = features if more is None else features.hstack(more(payments))
        values = features.cast(pl.Float64).to_numpy()
        model = HistGradientBoostingClassifier(learning_rate=0.08, max_iter=150, min_samples_leaf=40, random_state=0)
        score = model.fit(values[train], label[train]).predict_proba(values[test])[:, 1]
        alert = score >= np.sort(score)[-label[test].sum()]
        told = {one: float(alert[kind[test] == one].mean()) for one in sorted(set(kind) - {""})}
        found[name] = {"average precision": float(average_precision_score(label[test], score)), **told}
    return found


def _before(entity: str, measure: pl.Expr, span: str) -> pl.Expr:
    """A measure of the entity's payments in [t - span, t)."""
    there = pl.col(entity).is_not_null()
    return pl.when(there).then(measure.rolling("timestamp", period=span, closed="left").over(entity))


def _best(label: np.ndarray, column: pl.Series) -> float:
    values = column.fill_null(float("nan")).to_numpy()
    least = np.nanmin(values) - 1
    ways = (np.nan_to_num(values, nan=least), -np.nan_to_num(values, nan=np.nanmax(values) + 1))
    return max(float(average_precision_score(label, way)) for way in ways)


def main() -> None:
    """Print the tables."""
    declared = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    config = SimulatorConfig.model_validate(declared["simulator"])
    zone = ZoneInfo(declared["timezone"])
    payments = derived(simulate(config, *window("2024", Cadence.YEARLY, zone), zone))
    legitimate = payments.filter(~pl.col("label")).height
    base = {one.value: payments.filter(pl.col("kind") == one.value).height for one in ONLINE_KINDS}
    print(f"| signal | all fraud | {' | '.join(base)} |\n|---|---|{'---|' * len(base)}")
    shares = " | ".join(f"{count / (count + legitimate):.4f}" for count in base.values())
    print(f"| (base rate, of {payments.height:,} payments) | {payments['label'].mean():.4f} | {shares} |")
    for one in told_by(payments):
        print(f"| `{one.signal}` | {one.precision:.3f} | {' | '.join(f'{value:.3f}' for value in one.of_kind.values())} |")
    found = recalls(payments)
    print(f"\n| | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for measure in found["usual"]:
        print(f"| {measure} | {' | '.join(f'{told[measure]:.2f}' for told in found.values())} |")


if __name__ == "__main__":
    main()
