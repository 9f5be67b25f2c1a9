"""What the notebook `explore.py` is drawn with: the data as the product reads it, rates with intervals, and one style."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fraud_assets.reports.plots import BLUE, GREEN, GREY, ORANGE, RED
from fraud_core.features import catalogue
from fraud_core.intake.landing import land, partition_keys
from fraud_core.intake.raw import build_raw
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.directory import DirectoryStore

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "RED"]

Array = npt.NDArray[Any]
DRAWS = 400  # bootstrap draws over cards behind every interval
FEWEST_CARDS = 5  # a square of the map with fewer is left out: it could be a person
# Cards are only counted here, and their hashes leave this process nowhere: a key that is known does no harm.
KEY = Key(bytes(32))


@dataclass(frozen=True)
class Rate:
    """Fraud rates of groups.

    Attributes:
        rate: frauds over payments, one a group.
        low, high: 95 % intervals by bootstrap over cards.
        payments: how many there are.
        cards: how many cards made them.
    """

    rate: Array
    low: Array
    high: Array
    payments: Array
    cards: Array

    @property
    def reach(self) -> Array:
        """How far each interval reaches down and up, as error bars take it."""
        return np.maximum(np.array([self.rate - self.low, self.high - self.rate]), 0)


def read(source: Source) -> pl.DataFrame:
    """Every payment that the source's rules let in, with the features that need no history, in time order.

    Beside the features (`amount` in currency units, local `hour`, `age` in years, `distance` in metres, `category`) it has
    `month` (local), `fraud`, and `card`, a number that is drawn anew for each reading.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = DirectoryStore(Path(folder))
        landing = land(source, store, KEY, None)
        parts = [build_raw(source, landing, key, store, KEY).rows.frame for key in partition_keys(source, landing)]
    rows = pl.concat(parts)
    made = catalogue.feature_frame(rows, catalogue.STANDARD.available(rows.columns), source.zone)
    local = rows["timestamp"].dt.convert_time_zone(source.timezone)
    return made.with_columns(
        amount=rows["amount_cents"] / 100,
        month=local.dt.truncate("1mo").dt.date(),
        fraud=rows["label"],
        card=rows["card"].rank("dense"),
        home_latitude=rows["home_latitude"],
        home_longitude=rows["home_longitude"],
    )


def source_of_this_run() -> Source:
    """The source that `make.py` names in the environment; the built-in simulator's by default."""
    files = tuple(filter(None, [os.environ.get("GALLERY_FILE", "")]))
    return load_source(Path(os.environ.get("GALLERY_SOURCE", "sources/simulated.toml")), files)


def rates(groups: Array, rows: pl.DataFrame, count: int) -> Rate:
    """Fraud rates of groups 0 to count - 1; a row of another group counts in none.

    Payments of one card resemble each other, so cards are drawn again, not payments.
    """
    kept = (groups >= 0) & (groups < count)
    cards, fraud = rows["card"].to_numpy().astype(int)[kept], rows["fraud"].to_numpy()[kept]
    width = int(rows["card"].max()) + 1  # type: ignore[arg-type]
    cell = groups[kept].astype(int) * width + cards
    payments = np.bincount(cell, minlength=count * width).reshape(count, width).astype(float)
    frauds = np.bincount(cell, weights=fraud, minlength=count * width).reshape(count, width)
    weights = np.random.default_rng(20).multinomial(width, np.full(width, 1 / width), DRAWS)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (weights @ frauds.T) / (weights @ payments.T)
        rate = frauds.sum(1) / payments.sum(1)
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0) if count else (rate, rate)
    return Rate(rate, low, high, payments.sum(1), (payments > 0).sum(1))


def picture(width: float = 8.0, height: float = 4.2, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure and its axes, in the style of the product's own plots."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    made = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in made.flat:
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, made[0, 0] if rows * columns == 1 else made.ravel()


def per_cent(axes: Axes, which: str = "y") -> None:
    """Shares between 0 and 1 are written as per cent."""
    getattr(axes, f"{which}axis").set_major_formatter(PercentFormatter(1.0, decimals=None))


def draw_rate(axes: Axes, places: Array, rate: Rate, colour: str = BLUE) -> None:
    """Rates as points with their intervals, joined by a thin line."""
    axes.errorbar(places, rate.rate, yerr=rate.reach, fmt="o-", color=colour, capsize=3, markersize=5, linewidth=1.2)
    axes.set_ylim(bottom=0)
    per_cent(axes)


def draw_average(axes: Axes, rows: pl.DataFrame, horizontal: bool = True) -> None:
    """The fraud rate of all payments, as a line to compare with."""
    average = float(rows["fraud"].mean())  # type: ignore[arg-type]
    line = axes.axhline if horizontal else axes.axvline
    line(average, color=RED, linestyle=":", linewidth=1.5, label=f"All payments: {average:.2%}")
    axes.legend(frameon=False, fontsize=9, loc="best")


def show(name: str, figure: Figure, alt: str, says: str) -> None:
    """A picture under its name, and what one sees in it. `make.py` takes both out of the executed notebook."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        figure.savefig(file.name, metadata={"Software": None}, facecolor="white")
        display(Image(Path(file.name).read_bytes()), metadata={"gallery": {"name": name, "alt": alt}})
    display(Markdown(says))
