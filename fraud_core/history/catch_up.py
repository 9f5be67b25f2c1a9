"""Brings a history store up to what raw and the log of labels hold. Cut short, it goes on where it was.

Which partition was loaded, and up to which label, is noted in the store itself: a store that was lost is filled anew.

The store counts a payment by the label that raw has, until somebody's word about it is in the log. From then on it counts by
words alone: its own label is taken back, and what the words say is added as corrections. A word about a payment that nobody
knows of waits, and is counted once the payment was scored here or a file has brought it. So it is the same in the end whichever
came first: the word, the payment or the file.

What is loaded follows the newest partition that the gate accepts: that one, and those that its features look back into, which are
loaded even where the gate rejects them, for the training saw them so, too. A newer one is held back until it is accepted: nothing
that was learned has seen it, and what is the present is not taken from it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import polars as pl

from fraud_core.decisions.log import DecisionLog, DecisionRecord
from fraud_core.features.batch import columns_for
from fraud_core.features.catalogue import plan_of
from fraud_core.features.online import Correction
from fraud_core.features.windows import Plan
from fraud_core.history.layout import kept_us
from fraud_core.history.store import Heard, HistoryStore, Loaded, hours_key
from fraud_core.labels.log import LabelLog
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts, Pointer, fingerprint
from fraud_core.training_data.labels import corrections, log_since
from fraud_core.training_data.transform import source_features
from fraud_core.units.time import EPOCH, to_microseconds

AWAITED = timedelta(days=90)  # beyond the reach: no label comes so long before its payment


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
        raws: what raw holds, where it was read already; None: it is read in its place.
    """

    source: Source
    artifacts: Artifacts
    labels: LabelLog
    decisions: DecisionLog
    store: HistoryStore
    is_accepted: Callable[[str], bool] = lambda _: True
    raws: Mapping[str, Pointer] | None = None

    def within_reach(self) -> dict[str, Pointer]:
        """The partitions of raw that features of the newest accepted one with rows look back into, and that one, oldest first."""
        raws = self._raws()
        newest = next((key for key in reversed(list(raws)) if raws[key].rows and self.is_accepted(key)), None)
        if newest is None:
            return {}
        return {key: raws[key] for key in [*self.source.preceding(newest), newest] if key in raws}

    def held_back(self) -> tuple[str, ...]:
        """The partitions with rows that are newer than the newest accepted one."""
        newest = max(self.within_reach(), default="")
        return tuple(key for key, pointer in self._raws().items() if pointer.rows and key > newest)

    def _raws(self) -> Mapping[str, Pointer]:
        return self.artifacts.pointers("raw") if self.raws is None else self.raws

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
        return fingerprint("load 1", pointer.sha256, str(reach.history_us), str(reach.delay_us), *self._kept_beyond())

    def _kept_beyond(self) -> tuple[str, ...]:
        """What is kept of payments beside what is kept of all."""
        own, others = self.plan.own_of, self.plan.others
        kept = [text for entity, names in sorted(own.items()) if names for text in (entity, "keeps", *names)]
        return (*kept, "of", *others) if kept or others else ()

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
        """Whether there are labels that the store has not heard, or could not count until now.

        Raises:
            StoreError: the store or the database cannot be used.
        """
        heard = self.store.heard()
        return bool(self.labels.since(heard.through, 1)) or bool(self.decisions.find_all(heard.waiting or ()))

    def run(self) -> CaughtUp:
        """Load what is due, then hear the labels.

        Raises:
            StoreError: the store or the database cannot be used. What was done stays done.
        """
        due, within, heard = self.due(), self.within_reach(), self.store.heard()
        words = log_since(self.labels, 0)
        waiting = self._waiting(words, heard)
        new, newest, oldest = 0, self.newest(), self.oldest()
        for key in due:
            new += self.store.load(unlabelled(self._rows(key).filter(pl.col("timestamp") >= oldest), words["transaction_id"]))
            self.store.note_loaded(key, Loaded(self.stamp(due[key]), to_microseconds(datetime.now(UTC))))
        fresh = words.filter(pl.col("sequence") > heard.through)
        about = pl.concat([fresh["transaction_id"], waiting]).unique(maintain_order=True)
        unplaced = about.clear()
        if not about.is_empty():
            for key in within if not fresh.is_empty() else ():
                labelled = self._rows(key).filter(pl.col("timestamp") >= oldest, pl.col("transaction_id").is_in(about.implode()))
                self.store.load(unlabelled(labelled, about))
            placed = self.places(about)
            unplaced = about.filter(~about.is_in(placed["transaction_id"].implode()))
            counted = words.filter(pl.col("sequence") <= heard.through, ~pl.col("transaction_id").is_in(waiting.implode()))
            through = max(heard.through, words["sequence"].max())  # type: ignore[type-var]
            now = Heard(through, tuple(sorted(self._still_awaited(words, unplaced))))  # type: ignore[arg-type]
            if now != heard:
                self.store.correct(dict(changes(words, counted, placed)), heard, now)
        payments = sum(pointer.rows or 0 for pointer in within.values())
        return CaughtUp(tuple(due), new, payments, newest, len(fresh), len(unplaced), self.held_back())

    def _waiting(self, words: pl.DataFrame, heard: Heard) -> pl.Series:
        """Ids of the payments about which labels were heard, and that nobody knew of then."""
        if heard.waiting is not None:
            return pl.Series("transaction_id", heard.waiting, dtype=pl.String)
        # The store was filled by release 0.1.0: what it could count were payments that were decided, or loaded.
        ids = words.filter(pl.col("sequence") <= heard.through)["transaction_id"].unique(maintain_order=True)
        loaded = set(self.store.loaded()) & set(self.within_reach())
        known = [
            *self.decisions.find_all(ids.to_list()),
            *(one for key in loaded for one in self._rows(key, ("transaction_id",))["transaction_id"]),
        ]
        return ids.filter(~ids.is_in(pl.Series(known, dtype=pl.String).implode()))

    def _still_awaited(self, words: pl.DataFrame, ids: pl.Series) -> list[str]:
        """Those of the payments that a label was about so lately that they may still come, by the time of the newest label."""
        since = pl.col("known_at").max() - timedelta(microseconds=self.source.reach.total_us) - AWAITED
        return (
            words.filter(pl.col("known_at") >= since, pl.col("transaction_id").is_in(ids.implode()))["transaction_id"]
            .unique()
            .to_list()
        )

    def places(self, ids: pl.Series) -> pl.DataFrame:
        """Id, time and the entities whose hours are counted of these payments, as far as raw within reach or the decision log
        has them."""
        entities = tuple(self.plan.hours)
        placed = ("transaction_id", "timestamp", *entities)
        rows = [self._rows(key, placed).filter(pl.col("transaction_id").is_in(ids.implode())) for key in self.within_reach()]
        decided = self.decisions.find_all(ids.to_list())
        told = [(one.transaction_id, one.timestamp, *(_entity_of(one, name) for name in entities)) for one in decided.values()]
        texts = dict.fromkeys(entities, pl.String())
        schema = {"transaction_id": pl.String(), "timestamp": pl.Datetime("us", "UTC"), **texts}
        frames = [pl.DataFrame(schema=schema), *rows, pl.DataFrame(told, schema=schema, orient="row")]
        return pl.concat(frames, how="diagonal").unique("transaction_id", keep="first", maintain_order=True)

    @cached_property
    def plan(self) -> Plan:
        """What the source's features need of the past."""
        return plan_of(source_features(self.source))

    def _rows(self, key: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """What history takes of a partition of raw."""
        columns = columns_for(self.plan) if columns is None else columns
        lazy = self.artifacts.scan("raw", key)
        present = lazy.collect_schema().names()
        return lazy.select([name for name in columns if name in present]).collect()


def unlabelled(payments: pl.DataFrame, spoken_of: pl.Series) -> pl.DataFrame:
    """The payments, without the labels of those that somebody's word is known of."""
    if "label" not in payments.columns:
        return payments
    silent = ~pl.col("transaction_id").is_in(spoken_of.implode())
    return payments.with_columns(label=pl.col("label").fill_null(False) & silent)


def _entity_of(record: DecisionRecord, entity: str) -> str | None:
    """The name of an entity as the decision log has it."""
    known: dict[str, str | None] = {"card": record.card, "merchant": record.merchant}
    return known[entity] if entity in known else getattr(record.transaction, "own", {}).get(entity)


def corrections_of(words: pl.DataFrame, placed: pl.DataFrame) -> pl.DataFrame:
    """What words say of entities' hours (see `features.batch.CORRECTIONS`), where payments count without their own labels.

    Args:
        words: see `labels.SCHEMA`.
        placed: see `CatchUp.places`.
    """
    entities = [name for name in placed.columns if name not in {"transaction_id", "timestamp"}]
    return corrections(words, placed.with_columns(label=pl.lit(None, pl.Boolean)), entities)


def changes(words: pl.DataFrame, counted: pl.DataFrame, placed: pl.DataFrame) -> Iterator[tuple[str, list[Correction]]]:
    """By `store.hours_key`, what has to be added where some of the words were counted before."""
    now, before = corrections_of(words, placed), corrections_of(counted, placed)
    taken_back = before.with_columns(-pl.col("frauds", "dropped"))
    summed = pl.concat([now, taken_back]).group_by("entity", "name", "hour", "known", maintain_order=True).sum()
    left = summed.filter((pl.col("frauds") != 0) | (pl.col("dropped") != 0))
    for (entity, name), rows in left.partition_by("entity", "name", as_dict=True, maintain_order=True).items():
        yield (
            hours_key(str(entity), str(name)),
            [Correction(*row) for row in rows.select("hour", "known", "frauds", "dropped").iter_rows()],
        )
