"""What single signals tell of fraud: average precision of each on `sources/simulated_online.toml`, beside its base rate.

`python bench/signals.py` prints the table of docs/simulator.md. What it measures is made here by hand, with Polars alone, and by
no engine of features: signals of a payment, and measures of what its device, network, e-mail, BIN and card did strictly before.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score

from fraud_core.simulator.config import ONLINE_KINDS, SimulatorConfig
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.partitions import Cadence, window

SOURCE = Path(__file__).parents[1] / "sources" / "simulated_online.toml"
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
        account_hours=(pl.col("timestamp") - pl.col("account_opened")).dt.total_seconds() / 3_600,
        same_country=pl.col("billing_country") == pl.col("shipping_country"),
    )


def signals_of(payments: pl.DataFrame) -> pl.DataFrame:
    """One column a signal; higher or lower means nothing yet."""
    first = pl.when(pl.col("device").is_not_null()).then(pl.struct("device", "card").is_first_distinct())
    local = pl.col("timestamp").dt.convert_time_zone("America/New_York")
    return payments.select(
        amount=pl.col("amount_cents") / pl.col("currency").replace_strict({"USD": 100, "EUR": 92, "JPY": 15_000}),
        hour=local.dt.hour(),
        online=_REMOTE,
        in_app=pl.col("channel") == "app",
        foreign_currency=pl.col("currency") != "USD",
        failed_cvv=_BAD_CHECK,
        no_cvv=pl.col("cvv").is_null() & _REMOTE,
        no_3ds=pl.col("three_ds") == "none",
        failed_3ds=pl.col("three_ds") == "failed",
        declined=_DECLINED,
        other_country=~pl.col("same_country"),
        account_hours="account_hours",
        new_account=pl.col("account_hours") < 24 * 7,
        new_card=pl.col("card").is_first_distinct(),
        new_device=first,
        device_payments_1d=_before("device", pl.len(), "1d"),
        device_cards_1h=_before("device", pl.col("card").n_unique(), "1h"),
        device_cards_1d=_before("device", pl.col("card").n_unique(), "1d"),
        device_cards_1d_online=pl.when(_REMOTE).then(_before("device", pl.col("card").n_unique(), "1d")),
        device_emails_1d=_before("device", pl.col("email").drop_nulls().n_unique(), "1d"),
        device_networks_1d=_before("device", pl.col("network").n_unique(), "1d"),
        bin_failed_cvv_10m=_before("bin", _BAD_CHECK.sum(), "10m"),
        bin_failed_cvv_1h=_before("bin", _BAD_CHECK.sum(), "1h"),
        bin_declined_1h=_before("bin", _DECLINED.sum(), "1h"),
        bin_cards_1h=_before("bin", pl.col("card").n_unique(), "1h"),
        bin_failed_share_1h=_before("bin", _BAD_CHECK.fill_null(value=False).mean(), "1h"),
        network_emails_7d=_before("network", pl.col("email").drop_nulls().n_unique(), "7d"),
        network_cards_7d=_before("network", pl.col("card").n_unique(), "7d"),
        network_account_hours_7d=_before("network", pl.col("account_hours").mean(), "7d"),
        network_devices_1d=_before("network", pl.col("device").n_unique(), "1d"),
        ip_cards_1h=_before("ip", pl.col("card").n_unique(), "1h"),
        email_cards_7d=_before("email", pl.col("card").n_unique(), "7d"),
        email_payments_7d=_before("email", pl.len(), "7d"),
        card_declined_1d=_before("card", _DECLINED.sum(), "1d"),
        card_devices_7d=_before("card", pl.col("device").n_unique(), "7d"),
        card_emails_7d=_before("card", pl.col("email").drop_nulls().n_unique(), "7d"),
    )


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
    """Print the table."""
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


if __name__ == "__main__":
    main()
