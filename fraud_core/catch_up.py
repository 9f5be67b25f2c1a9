"""Brings a history store up to what raw and the log of labels hold. Cut short, it goes on where it was.

Which partition was loaded, and up to which label, is noted in the store itself: a store that was lost is filled anew.

The store counts a payment by the label that raw has, until somebody's word about it is in the log. From then on it counts by
words alone: its own label is taken back, and what the words say is added as corrections. So it is the same in the end
whichever came first, the word or the file.

What is loaded follows the newest partition that the gate accepts: that one, and those that its features look back into, which are
loaded even where the gate rejects them, for the training saw them so, too. A newer one is held back until it is accepted: nothing
that was learned has seen it, and what is the present is not taken from it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from fraud_core.artifacts import Artifacts, Pointer, fingerprint
from fraud_core.history.asof import Correction
from fraud_core.history.columns import COLUMNS
from fraud_core.labels import corrections, log_since
from fraud_core.sources import Source
from fraud_core.stores.database import EPOCH, to_microseconds
from fraud_core.stores.decisions import DecisionLog
from fraud_core.stores.history import HistoryStore, Loaded, kept_us
from fraud_core.stores.labels import LabelLog

PLACED = ("transaction_id", "timestamp", "merchant")


@dataclass(frozen=True)
class CaughtUp:
    """What was done.

    Attributes:
        partitions: that were loaded, oldest first.
        new: payments that the store did not have.
        payments: in the partitions of raw within reach.
        newest: time of the newest one; None: there is none.
        labels: that were heard.
        unplaced: labels about payments that neither raw within reach nor the decision log has: they change no merchant yet.
        held_back: partitions that were not loaded, because the gate has not accepted them.
    """

    partitions: tuple[str, ...]
    new: int
    payments: int
    newest: datetime | None
    labels: int
    unplaced: int
    held_back: tuple[str, ...] = ()


@dataclass(frozen=True)
class CatchUp:
    """What a history store is filled from.

    Attributes:
        source: the source; its history is switched on.
        artifacts: where raw is.
        labels: somebody's words.
        decisions: know the merchants of payments that raw does not have yet.
        store: what is filled.
        is_accepted: whether the gate accepts what a partition holds at present.
    """

    source: Source
    artifacts: Artifacts
    labels: LabelLog
    decisions: DecisionLog
    store: HistoryStore
    is_accepted: Callable[[str], bool] = lambda _: True

    def within_reach(self) -> dict[str, Pointer]:
        """The partitions of raw that features of the newest accepted one with rows look back into, and that one, oldest first."""
        raws = self.artifacts.pointers("raw")
        newest = next((key for key in reversed(raws) if raws[key].rows and self.is_accepted(key)), None)
        if newest is None:
            return {}
        return {key: raws[key] for key in [*self.source.preceding(newest), newest] if key in raws}

    def held_back(self) -> tuple[str, ...]:
        """The partitions with rows that are newer than the newest accepted one."""
        newest = max(self.within_reach(), default="")
        return tuple(key for key, pointer in self.artifacts.pointers("raw").items() if pointer.rows and key > newest)

    def newest(self) -> datetime | None:
        """Time of the newest payment in raw, as far as it is accepted; None: there is none."""
        within = list(self.within_reach())
        if not within:
            return None
        last: datetime = self.artifacts.scan("raw", within[-1]).select(pl.col("timestamp").max()).collect().item()
        return last

    def oldest(self) -> datetime:
        """Payments before this are not loaded: the store would not keep them beside the newest one."""
        newest = self.newest()
        return EPOCH if newest is None else newest - timedelta(microseconds=kept_us(self.source.reach))

    def stamp(self, pointer: Pointer) -> str:
        """What loading a partition puts into the store: it is loaded again when this is another."""
        reach = self.source.reach
        return fingerprint("load 1", pointer.sha256, str(reach.history_us), str(reach.delay_us))

    def due(self) -> dict[str, Pointer]:
        """Partitions within reach that the store does not have as they are.

        Raises:
            StoreError: the store cannot be used.
        """
        loaded = self.store.loaded()
        return {
            key: pointer
            for key, pointer in self.within_reach().items()
            if key not in loaded or loaded[key].stamp != self.stamp(pointer)
        }

    def labels_wait(self) -> bool:
        """Whether there are labels that the store has not heard.

        Raises:
            StoreError: the store or the database cannot be used.
        """
        return bool(self.labels.since(self.store.corrected(), 1))

    def run(self) -> CaughtUp:
        """Load what is due, then hear the labels.

        Raises:
            StoreError: the store or the database cannot be used. What was done stays done.
        """
        due, within, heard = self.due(), self.within_reach(), self.store.corrected()
        words = log_since(self.labels, 0)
        spoken_of = words["transaction_id"].unique()
        early = self._undecided(words.filter(pl.col("sequence") <= heard)["transaction_id"].unique())
        new, newest, oldest = 0, self.newest(), self.oldest()
        for key in due:
            rows = unlabelled(self._rows(key).filter(pl.col("timestamp") >= oldest), spoken_of)
            new += self._load_late(rows.filter(pl.col("transaction_id").is_in(early.implode())), words, heard)
            new += self.store.load(rows)
            self.store.note_loaded(key, Loaded(self.stamp(due[key]), to_microseconds(datetime.now(UTC))))
        fresh = words.filter(pl.col("sequence") > heard)
        unplaced = 0
        if not fresh.is_empty():
            about = fresh["transaction_id"].unique()
            for key in within:
                labelled = self._rows(key).filter(pl.col("timestamp") >= oldest, pl.col("transaction_id").is_in(about.implode()))
                self.store.load(unlabelled(labelled, about))
            placed = self.places(about)
            unplaced = len(about) - len(placed)
            self.store.correct(dict(changes(words, heard, placed)), through=int(words["sequence"].max()))  # type: ignore[arg-type]
        payments = sum(pointer.rows or 0 for pointer in within.values())
        return CaughtUp(tuple(due), new, payments, newest, len(fresh), unplaced, self.held_back())

    def _undecided(self, ids: pl.Series) -> pl.Series:
        """Those of the payments that were not decided here: nothing told their merchant when labels about them were heard."""
        decided = self.decisions.find_all(ids.to_list())
        return ids.filter(~ids.is_in(pl.Series(list(decided), dtype=pl.String).implode()))

    def _load_late(self, payments: pl.DataFrame, words: pl.DataFrame, heard: int) -> int:
        """Load payments about which labels may have been heard before they came in, and add what these say."""
        late = [row for row in payments.iter_slices(1) if self.store.load(row)]
        if late:
            placed = pl.concat(late)
            said = words.filter(pl.col("sequence") <= heard).join(placed, on="transaction_id", how="semi")
            self.store.correct(dict(changes(said, 0, placed)), through=None)
        return len(late)

    def places(self, ids: pl.Series) -> pl.DataFrame:
        """Time and merchant (see `PLACED`) of these payments, as far as raw within reach or the decision log has them."""
        rows = [self._rows(key, PLACED).filter(pl.col("transaction_id").is_in(ids.implode())) for key in self.within_reach()]
        decided = self.decisions.find_all(ids.to_list())
        told = [(one.transaction_id, one.timestamp, one.merchant) for one in decided.values()]
        schema = {"transaction_id": pl.String(), "timestamp": pl.Datetime("us", "UTC"), "merchant": pl.String()}
        frames = [pl.DataFrame(schema=schema), *rows, pl.DataFrame(told, schema=schema, orient="row")]
        return pl.concat(frames, how="diagonal").unique("transaction_id", keep="first", maintain_order=True)

    def _rows(self, key: str, columns: Sequence[str] = COLUMNS) -> pl.DataFrame:
        """What history takes of a partition of raw."""
        lazy = self.artifacts.scan("raw", key)
        present = lazy.collect_schema().names()
        return lazy.select([name for name in columns if name in present]).collect()


def unlabelled(payments: pl.DataFrame, spoken_of: pl.Series) -> pl.DataFrame:
    """The payments, without the labels of those that somebody's word is known of."""
    if "label" not in payments.columns:
        return payments
    silent = ~pl.col("transaction_id").is_in(spoken_of.implode())
    return payments.with_columns(label=pl.col("label").fill_null(False) & silent)


def corrections_of(words: pl.DataFrame, placed: pl.DataFrame) -> pl.DataFrame:
    """What words say of merchants' hours (see `history.columns.CORRECTIONS`), where payments count without their own labels.

    Args:
        words: see `labels.SCHEMA`.
        placed: see `PLACED`.
    """
    return corrections(words, placed.with_columns(label=pl.lit(None, pl.Boolean)))


def changes(words: pl.DataFrame, heard: int, placed: pl.DataFrame) -> Iterator[tuple[str, list[Correction]]]:
    """By merchant, what has to be added where labels up to the number `heard` were added before."""
    now = corrections_of(words, placed)
    before = corrections_of(words.filter(pl.col("sequence") <= heard), placed)
    taken_back = before.with_columns(-pl.col("frauds", "dropped"))
    summed = pl.concat([now, taken_back]).group_by("merchant", "hour", "known", maintain_order=True).sum()
    left = summed.filter((pl.col("frauds") != 0) | (pl.col("dropped") != 0))
    for (merchant,), rows in left.partition_by("merchant", as_dict=True, maintain_order=True).items():
        yield str(merchant), [Correction(*row) for row in rows.select("hour", "known", "frauds", "dropped").iter_rows()]
