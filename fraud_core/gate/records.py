"""The signed verdicts in the object store: written, read, decided upon, and the training set that follows from them."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime

import polars as pl
from pydantic import ValidationError

from fraud_core.errors import GateRefusalError, IntegrityError, StoreConflictError
from fraud_core.gate.verdict import NATURAL_PARTITIONS, Decision, Judgement, Past, TrainingSet, Verdict, explain, verdict_key
from fraud_core.keys import Key, canonical_json, sign, verify
from fraud_core.sources import Drift
from fraud_core.stores.objects import ObjectStore

_ATTEMPTS = 5


def load_past(store: ObjectStore, key: Key, partition: str, materialized: Mapping[str, str], settings: Drift) -> Past:
    """The accepted verdicts before the partition that hold for their present content, and the samples of the last K.

    Args:
        store: where verdicts and samples lie.
        key: the signing key.
        partition: the one to be judged.
        materialized: partition -> sha256 of its present transformed content, for every materialized partition.
        settings: the source's.

    Raises:
        IntegrityError: a sample is missing or is not the one that its verdict was signed with.
    """
    verdicts: list[Verdict] = []
    for earlier in sorted((other for other in materialized if other < partition), reverse=True):
        if len(verdicts) == NATURAL_PARTITIONS:
            break
        try:
            verdict = read_verdict(store, key, earlier)
        except IntegrityError:
            continue  # not trusted, so not a reference; `training_set` refuses until it is judged again
        if verdict is not None and verdict.content == materialized[earlier] and verdict.is_accepted:
            verdicts.insert(0, verdict)
    samples = tuple(_read_sample(store, verdict) for verdict in verdicts[-settings.reference_partitions :])
    return Past(tuple(verdicts), samples)


def record(store: ObjectStore, key: Key, judgement: Judgement) -> Verdict:
    """Write the sample and the signed verdict, and return it as written.

    What people decided about this very content is carried over; decisions about other content go with its verdict.

    Raises:
        StoreError: the store refuses, or others keep writing the same verdict.
    """
    store.put(judgement.verdict.sample_key, judgement.sample)

    def renewed(data: bytes | None) -> Verdict:
        try:
            previous = None if data is None else _parse(data, key, judgement.verdict.partition)
        except IntegrityError:
            previous = None  # what does not verify decides nothing, and is replaced
        same = previous is not None and previous.content == judgement.verdict.content
        return judgement.verdict.model_copy(update={"decisions": previous.decisions if previous and same else ()})

    return _update(store, key, judgement.verdict.partition, renewed)


def read_verdict(store: ObjectStore, key: Key, partition: str) -> Verdict | None:
    """The partition's verdict; None where there is none.

    Raises:
        IntegrityError: it was changed by hand, signed with another key, or belongs to another partition.
    """
    try:
        data = store.get(verdict_key(partition))
    except KeyError:
        return None
    return _parse(data, key, partition)


def training_set(store: ObjectStore, key: Key, materialized: Mapping[str, str], own_partition: str | None = None) -> TrainingSet:
    """The partitions that may train a model.

    Args:
        store: where the verdicts lie.
        key: the signing key.
        materialized: partition -> sha256 of its present transformed content, for every materialized partition.
        own_partition: the partition of the asking run, if it has one; it must be accepted.

    Raises:
        GateRefusalError: a materialized partition has no verdict, one for other content or one that does not verify; the run's
            own partition is not accepted; or none is.
    """
    verdicts = {partition: _holding(store, key, partition, materialized[partition]) for partition in sorted(materialized)}
    if own_partition is not None:
        if own_partition not in verdicts:
            raise GateRefusalError(
                f"Partition {own_partition} is not materialized, so it has no drift verdict; materialize transformed for it."
            )
        if not verdicts[own_partition].is_accepted:
            raise GateRefusalError(explain(verdicts[own_partition]))
    if not any(verdict.is_accepted for verdict in verdicts.values()):
        raise GateRefusalError(
            "No partition is accepted by the drift gate, so there is nothing to train on; "
            "materialize transformed and run its check `drift`."
        )
    return TrainingSet(
        accepted=tuple(verdict.ref for verdict in verdicts.values() if verdict.is_accepted),
        rejected=tuple(verdict.ref for verdict in verdicts.values() if not verdict.is_accepted),
        verdicts=verdicts,
    )


def accept(store: ObjectStore, key: Key, partition: str, content: str, *, who: str, reason: str, now: datetime) -> Verdict:
    """A person lets this content train, whatever the statistics say; returns the verdict as written.

    Args:
        store: where the verdict lies.
        key: the signing key.
        partition: its key.
        content: sha256 (hex) of its present transformed content; the acceptance holds for no other.
        who: the person, as far as known.
        reason: why, in at least two words.
        now: when, with a time zone.

    Raises:
        GateRefusalError: the reason has no words, there is no verdict, or it speaks of other content.
    """
    return _decide(store, key, partition, content, Decision(action="accept", who=who, reason=reason, at=now))


def refuse(store: ObjectStore, key: Key, partition: str, content: str, *, who: str, reason: str, now: datetime) -> Verdict:
    """A person takes an acceptance back, their own or the gate's: the contrary of `accept`, with its arguments and errors."""
    return _decide(store, key, partition, content, Decision(action="refuse", who=who, reason=reason, at=now))


def fingerprint(accepted: TrainingSet) -> str:
    """sha256 (hex) of the accepted partitions and their contents: equal for equal training sets, whatever was rejected."""
    pairs = sorted((part.partition, part.content) for part in accepted.accepted)
    return hashlib.sha256(canonical_json({"accepted": pairs})).hexdigest()


def _read_sample(store: ObjectStore, verdict: Verdict) -> pl.DataFrame:
    try:
        data = store.get(verdict.sample_key)
    except KeyError:
        data = b""
    if hashlib.sha256(data).hexdigest() != verdict.sample_sha256:
        raise IntegrityError(
            f"The reference sample {verdict.sample_key} is missing or was changed; run the check `drift` on transformed for "
            f"{verdict.partition} again, which writes it anew."
        )
    return pl.read_parquet(data)


def _parse(data: bytes, key: Key, partition: str) -> Verdict:
    what = f"The drift verdict {verdict_key(partition)}"
    try:
        document = json.loads(data)
    except ValueError as error:
        raise IntegrityError(f"{what} is not JSON; run the check `drift` on transformed for {partition} again.") from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{what} is not a verdict; run the check `drift` on transformed for {partition} again.")
    body = verify(document, key, what)
    try:
        verdict = Verdict.model_validate(body)
    except ValidationError as error:
        raise IntegrityError(
            f"{what} was written by another version of this product; run the check `drift` on transformed for {partition} again."
        ) from error
    if verdict.partition != partition:
        raise IntegrityError(f"{what} speaks of partition {verdict.partition}: it was moved there, and is not used.")
    return verdict


def _update(store: ObjectStore, key: Key, partition: str, change: Callable[[bytes | None], Verdict]) -> Verdict:
    """Replace the verdict by what `change` makes of its present bytes (None: there is none). Again if others wrote in between."""
    attempt = 1
    while True:
        tagged = store.get_tagged(verdict_key(partition))
        data, tag = (None, None) if tagged is None else tagged
        verdict = change(data)
        document = json.dumps(sign(verdict.model_dump(mode="json"), key), indent=1, sort_keys=True).encode()
        try:
            store.put_if(verdict_key(partition), document, tag)
        except StoreConflictError:
            if attempt == _ATTEMPTS:
                raise
            attempt += 1
        else:
            return verdict


def _holding(store: ObjectStore, key: Key, partition: str, content: str) -> Verdict:
    """The verdict that holds for this content of the partition."""
    again = f"Run the check `drift` on transformed for {partition}; no model is trained before."
    try:
        verdict = read_verdict(store, key, partition)
    except IntegrityError as error:
        raise GateRefusalError(f"{error} {again}") from error
    if verdict is None:
        raise GateRefusalError(f"Partition {partition} is materialized but has no drift verdict. {again}")
    if verdict.content != content:
        raise GateRefusalError(f"Partition {partition} has changed since its drift verdict. {again}")
    return verdict


def require_reason(partition: str, action: str, reason: str) -> None:
    """See that a reason has at least two words.

    Raises:
        GateRefusalError: it has not.
    """
    if len(re.findall(r"[^\W\d_]{2,}", reason)) < 2:
        raise GateRefusalError(
            f"To {action} partition {partition}, give a reason in words: who reads the model's card will see it."
        )


def _decide(store: ObjectStore, key: Key, partition: str, content: str, decision: Decision) -> Verdict:
    require_reason(partition, decision.action, decision.reason)

    def decided(data: bytes | None) -> Verdict:
        if data is None:
            raise GateRefusalError(f"Partition {partition} has no drift verdict; run its check `drift` first.")
        try:
            verdict = _parse(data, key, partition)
        except IntegrityError as error:
            raise GateRefusalError(f"{error} Run the check `drift` on transformed for {partition} again first.") from error
        if verdict.content != content:
            raise GateRefusalError(
                f"Partition {partition} has changed since its drift verdict; run its check `drift` again first."
            )
        return verdict.model_copy(update={"decisions": (*verdict.decisions, decision)})

    return _update(store, key, partition, decided)
