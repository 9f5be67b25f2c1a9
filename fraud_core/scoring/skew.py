"""Training-serving skew: logged features against those recomputed as of what was known at each decision.

Known at a decision are the recorded payments up to the sequence that it saw, raw as far as it had been loaded, and the labels
that the store had heard. Labels are heard now and then, so a decision may have been made with fewer than were there: then its
features are right for an earlier end of the log of labels, and it is reported apart. So is a decision before which payments
were made that came in after it. What was loaded after a decision cannot be told from what was loaded again; a decision for which
that matters is reported apart, too, unless it differs in something that no history has a part in.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from fraud_core.decisions.log import DecisionRecord
from fraud_core.decisions.record import table_of
from fraud_core.features import catalogue
from fraud_core.features.batch import columns_for, states
from fraud_core.fields import schema
from fraud_core.fields.declared import REFUND
from fraud_core.history.catch_up import CatchUp, corrections_of, unlabelled
from fraud_core.models.scorer import Scorer
from fraud_core.sources import partitions
from fraud_core.training_data.labels import log_since
from fraud_core.units.time import DAY_US, to_microseconds

AT_ONCE = 10_000  # recorded payments in one question
ScorerOf = Callable[[str], Scorer | None]


@dataclass(frozen=True)
class Mismatch:
    """A decision whose features are not what they should be, and which of them."""

    transaction_id: str
    features: tuple[str, ...]


@dataclass
class Skew:
    """What was found.

    Attributes:
        checked: decisions whose features were recomputed.
        mismatches: those that differ, with nothing that came late to explain it.
        late_rows: decisions before which payments were made that came in after them.
        late_labels: decisions made before the history had heard of labels that were there.
        gone: decisions that can no longer be checked: their payment or their model is not kept any more.
    """

    checked: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    late_rows: int = 0
    late_labels: int = 0
    gone: int = 0


def recheck(known: CatchUp, scorer_of: ScorerOf, since: datetime, limit: int) -> Skew:
    """Recompute the logged features of the latest decisions.

    Args:
        known: where everything is that a decision could know of.
        scorer_of: version of a model -> its scorer; None where there is no such model any more.
        since: decisions made before are not looked at.
        limit: of decisions.

    Raises:
        StoreError: a store or the database cannot be used.
    """
    found = Skew()
    decisions = known.decisions.logged(since, limit)
    if not decisions:
        return found
    world = _Snapshot.of(known, decisions)
    for decision in decisions:
        scorer, own = scorer_of(decision.model_version), world.own.get(decision.transaction_id)
        if scorer is None or scorer.reach is None or own is None:
            found.gone += 1
            continue
        found.checked += 1
        _judge(found, decision, world.around(decision, scorer), scorer, table_of([own], world.columns))
    return found


@dataclass(frozen=True)
class _Neighbours:
    """What lies around a payment.

    Attributes:
        payments: what was known of its entities, as `features.batch.states` takes it; labels are those of files.
        words: labels about them, that were there at the decision; `early`: before their payment was scored.
        placed: time and entities of the payments that words are about.
        rows_came_late: whether payments made before it came in after it.
        is_vague: whether what was known of them cannot be told exactly.
    """

    payments: pl.DataFrame
    words: pl.DataFrame
    placed: pl.DataFrame
    rows_came_late: bool
    is_vague: bool


@dataclass(frozen=True)
class _Snapshot:
    """Everything about the entities of some decisions.

    Attributes:
        columns: of a payment, with their types: what is recorded of it.
        entities: whose past features speak of.
    """

    columns: Mapping[str, pl.DataType]
    entities: tuple[str, ...]
    recorded: pl.DataFrame
    raw: pl.DataFrame
    words: pl.DataFrame
    placed: pl.DataFrame
    scored: pl.DataFrame
    own: Mapping[str, Mapping[str, Any]]
    oldest_loaded: datetime

    @classmethod
    def of(cls, known: CatchUp, decisions: Sequence[DecisionRecord]) -> "_Snapshot":
        ids = {decision.transaction_id for decision in decisions}
        declared, entities = known.source.declared, known.plan.entities
        columns = {column.name: column.dtype for column in (*schema.CANONICAL, *declared.columns) if column.name != "label"}
        needed = {name: columns.get(name, pl.Boolean()) for name in columns_for(known.plan)}
        own = {payment["transaction_id"]: payment for _, payment in _recorded(known) if payment["transaction_id"] in ids}
        names = {entity: {payment.get(entity) for payment in own.values()} - {None} for entity in entities}
        rows = [
            payment | {"sequence": sequence}
            for sequence, payment in _recorded(known)
            if any(payment.get(entity) in some for entity, some in names.items())
        ]
        recorded = table_of(rows, {**needed, "sequence": pl.Int64()}).with_columns(pl.col(REFUND).fill_null(value=False))
        oldest = min(decision.timestamp for decision in decisions) - timedelta(days=known.source.lookback_days)
        words = log_since(known.labels, 0)
        decided = known.decisions.find_all(words["transaction_id"].unique().to_list())
        times = [(one.transaction_id, one.scored_at) for one in decided.values()]
        raw = _raw(known, oldest, names, needed)
        return cls(
            columns=columns,
            entities=entities,
            recorded=recorded,
            raw=pl.concat([pl.DataFrame(schema={**needed, "loaded": pl.Int64()}), *raw]),
            words=words,
            placed=known.places(words["transaction_id"].unique()),
            scored=pl.DataFrame(times, {"transaction_id": pl.String(), "scored_at": schema.UTC_MICROSECONDS}, orient="row"),
            own=own,
            oldest_loaded=known.oldest(),
        )

    def around(self, decision: DecisionRecord, scorer: Scorer) -> _Neighbours:
        payment = self.own[decision.transaction_id]
        assert scorer.reach is not None
        assert decision.sequence is not None
        at, scored_at = to_microseconds(decision.timestamp), to_microseconds(decision.scored_at)
        time = pl.col("timestamp").dt.epoch("us")
        same = [pl.col(name).eq(pl.lit(payment.get(name), pl.String)).fill_null(False) for name in self.entities]
        mine = pl.any_horizontal(same) & (time >= at - scorer.reach.total_us)
        mine = mine & (pl.col("transaction_id") != decision.transaction_id)
        recorded, raw = self.recorded.filter(mine), self.raw.filter(mine)
        in_time = recorded.filter(pl.col("sequence") <= decision.sequence).drop("sequence")
        loaded = raw.filter(pl.col("loaded") <= scored_at).drop("loaded")
        payments = pl.concat([loaded, in_time]).unique("transaction_id", keep="first", maintain_order=True)
        present = payments["transaction_id"].implode()
        late = [frame.filter(time < at, ~pl.col("transaction_id").is_in(present)) for frame in (recorded, raw)]
        newest = payments.select(time.max()).item()
        loaded_since = not raw.filter(pl.col("loaded") > scored_at, time < at).is_empty()
        hourly = [name for name in self.placed.columns if name in self.entities]
        theirs = [pl.col(name).eq(pl.lit(payment.get(name), pl.String)).fill_null(False) for name in hourly]
        placed = self.placed.filter(pl.any_horizontal(theirs) if theirs else pl.lit(False))
        about = pl.col("transaction_id").is_in(placed["transaction_id"].implode())
        words = self.words.filter(about, pl.col("known_at") <= decision.scored_at)
        words = words.join(self.scored, on="transaction_id", how="left", maintain_order="left")
        words = words.with_columns(early=(pl.col("known_at") < pl.col("scored_at")).fill_null(False)).drop("scored_at")
        # Of what lies before an old payment, some may have been removed, or was never loaded.
        is_behind = newest is not None and newest > at + DAY_US
        is_behind |= at - scorer.reach.total_us < to_microseconds(self.oldest_loaded)
        return _Neighbours(payments, words, placed, any(len(frame) for frame in late), loaded_since or is_behind)


def _recorded(known: CatchUp) -> Iterator[tuple[int, dict[str, Any]]]:
    last = 0
    while page := known.store.recorded(last, AT_ONCE):
        last = page[-1].sequence
        for one in page:
            yield one.sequence, json.loads(one.payment)


def _raw(
    known: CatchUp, oldest: datetime, names: Mapping[str, Collection[Any]], needed: Mapping[str, pl.DataType]
) -> Iterator[pl.DataFrame]:
    """What was loaded of raw about these entities, and when."""
    for key, loaded in known.store.loaded().items():
        _, end = partitions.window(key, known.source.cadence, known.source.zone)
        if end <= oldest or known.artifacts.pointer("raw", key) is None:
            continue
        lazy = known.artifacts.scan("raw", key)
        present = lazy.collect_schema().names()
        lacking = [pl.lit(None, dtype).alias(name) for name, dtype in needed.items() if name not in present]
        rows = lazy.with_columns(lacking).select(list(needed))
        wanted = pl.any_horizontal(pl.col(entity).is_in(list(some)) for entity, some in names.items())
        yield rows.filter(wanted).with_columns(loaded=pl.lit(loaded.at, pl.Int64)).collect()


def _judge(found: Skew, decision: DecisionRecord, around: _Neighbours, scorer: Scorer, own: pl.DataFrame) -> None:
    logged = decision.features
    assert logged is not None
    if catalogue.digest(logged) != decision.features_sha256:
        differing: tuple[str, ...] = ("features_sha256",)
    else:
        differing = _differing(logged, around, around.words, scorer, own)
    if not differing:
        found.late_rows += around.rows_came_late
        return
    from_history = {feature.name for feature in scorer.features if feature.is_history}
    if from_history.issuperset(differing):
        if any(not _differing(logged, around, words, scorer, own) for words in _earlier(around.words)):
            found.late_labels += 1
            return
        if around.is_vague:
            found.late_rows += 1
            return
    found.mismatches.append(Mismatch(decision.transaction_id, differing))


def _earlier(words: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """What the history may have heard of the log: not its last words, the newest first; nor those that wait for their payment."""
    for some in (words, words.filter(~pl.col("early"))):
        for length in range(len(some), -1, -1):
            if length < len(words):
                yield some.head(length)


def _differing(
    logged: Mapping[str, Any], around: _Neighbours, words: pl.DataFrame, scorer: Scorer, own: pl.DataFrame
) -> tuple[str, ...]:
    """Names of the features that are not, to the last bit, what they are now."""
    assert scorer.reach is not None
    before = unlabelled(around.payments, words["transaction_id"])
    lacking = [pl.lit(None, dtype).alias(name) for name, dtype in before.schema.items() if name not in own.columns]
    mine = own.with_columns(lacking).with_columns(label=False).select(before.columns)
    payments = pl.concat([before, mine])
    wanted = pl.Series([False] * len(around.payments) + [True])
    past = states(payments, wanted, scorer.plan, scorer.reach, scorer.zone, corrections_of(words, around.placed))
    inputs = catalogue.inputs_of(own.hstack(past), scorer.features)
    values = catalogue.plain(catalogue.compute(scorer.features, inputs, scorer.zone))[0]
    names = dict.fromkeys((*values, *logged))
    return tuple(name for name in names if json.dumps(values.get(name, "none")) != json.dumps(logged.get(name, "none")))
