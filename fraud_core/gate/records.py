"""The signed verdicts in the object store: written, read, decided upon, and the training set that follows from them.

Whoever follows the verdicts remembers in `Heads` how far each was; without (`heads` is None), what lies in the store is taken.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

import polars as pl

from fraud_core.errors import GateRefusalError, IntegrityError
from fraud_core.gate.past import select_past
from fraud_core.gate.rules import Rules
from fraud_core.gate.verdict import (
    FOLDER,
    Decision,
    Judgement,
    PartitionRef,
    Past,
    TrainingSet,
    Verdict,
    VerdictSummary,
    explain,
    has_words,
    sample_key,
    verdict_index,
    verdict_key,
)
from fraud_core.signing.keys import Key, canonical_json
from fraud_core.sources.source import Drift
from fraud_core.storage.documents import Found, SignedDocument, follow_all
from fraud_core.storage.heads import Heads
from fraud_core.storage.index import Index
from fraud_core.storage.objects import ObjectStore


def verdict_of(store: ObjectStore, key: Key, partition: str, heads: Heads | None = None) -> SignedDocument[Verdict]:
    """The verdict on a partition, in its place in the store."""
    return SignedDocument(
        Verdict,
        verdict_key(partition),
        store,
        key,
        heads,
        what=f"The verdict on {partition}",
        repair=f"Run the check `drift` on transformed for {partition} again.",
        renew=f'`fraud accept {partition} --reason "..."` or `fraud refuse` decides anew on what lies there; if the store was '
        'restored from a backup: `fraud confirm --restored --reason "..."`.',
        named={"partition": partition},
        indent=1,
    )


def drift_index(store: ObjectStore, key: Key, heads: Heads | None = None) -> Index[VerdictSummary]:
    """The index of the verdicts, for planning; one that does not verify is not in it."""
    return verdict_index(
        "drift", VerdictSummary, store, key, heads, f"{FOLDER}/", lambda one: verdict_of(store, key, one).look().document
    )


def load_past(
    store: ObjectStore,
    key: Key,
    partition: str,
    materialized: Mapping[str, str],
    settings: Drift,
    rules: Rules | None = None,
    heads: Heads | None = None,
) -> Past:
    """What a partition is judged against: accepted verdicts that hold, with their samples.

    Args:
        store: where verdicts and samples lie.
        key: the signing key.
        partition: the one to be judged.
        materialized: partition -> sha256 of its present transformed content, for every materialized partition.
        settings: the source's.
        rules: those in force; verdicts by other ones are no reference.
        heads: the newest verdicts that were seen.

    Raises:
        IntegrityError: a sample is missing or is not the one that its verdict was signed with.
    """
    before = sum(other < partition for other in materialized)
    # Only the first ones are compared with what lies after them; the samples of a few do.
    wanted = (
        sorted({*materialized, partition})
        if before < settings.bootstrap_partitions
        else [other for other in sorted({*materialized, partition}) if other <= partition]
    )
    found = _follow(store, key, wanted, heads)
    own = found.pop(partition)
    # What is not trusted is no reference; `training_set` refuses until it is judged again.
    accepted = [each.document for each in found.values() if each.document is not None and each.document.is_accepted]
    earlier = list(accepted_before(partition, materialized, lambda other: found[other].document, rules))[::-1]
    former = None if own.document is None else own.document.accepted_self
    return select_past(
        partition,
        earlier,
        accepted,
        None if former is None else (former, _read_sample(store, former, former.sample_sha256)),
        lambda verdict: _read_sample(store, verdict.ref, verdict.sample_sha256),
        settings,
    )


def accepted_before(
    partition: str, materialized: Mapping[str, str], verdict_of: Callable[[str], Verdict | None], rules: Rules | None = None
) -> Iterator[Verdict]:
    """The accepted verdicts that hold for what the partitions before this one hold at present, newest first.

    Args:
        partition: the one that they come before.
        materialized: partition -> sha256 of its present transformed content.
        verdict_of: a partition's verdict; None where there is none that is trusted.
        rules: those in force; verdicts by other ones do not hold. None: whichever.
    """
    for other in sorted((other for other in materialized if other < partition), reverse=True):
        verdict = verdict_of(other)
        if (
            verdict is not None
            and verdict.is_accepted
            and verdict.content == materialized[other]
            and (rules is None or rules.holds(verdict.rules))
        ):
            yield verdict


def record(store: ObjectStore, key: Key, judgement: Judgement, heads: Heads | None = None) -> Verdict:
    """Write the sample and the signed verdict, and return it as written.

    What people decided about this very content is carried over; decisions about other content go with its verdict. Where a
    verdict that was seen has been changed by hand, nobody knows what it said: the new one is refused until a person decides.

    Raises:
        GateRefusalError: the verdict in its place is not the newest that was seen, or is gone.
        StoreError: the store refuses, or others keep writing the same verdict.
    """
    store.put(judgement.verdict.sample_key, judgement.sample)
    document = verdict_of(store, key, judgement.verdict.partition, heads)

    def renewed(found: Found[Verdict]) -> Verdict:
        seen = {} if heads is None or found.problem is not None else heads.behind({document.where: found.head})
        if seen:
            raise GateRefusalError(document.not_the_newest(found.head, seen[document.where]))
        if not found.is_signed and heads is not None and heads.sequence(document.where):
            at = judgement.verdict.created_at
            return judgement.verdict.model_copy(
                update={"decisions": (Decision(action="refuse", who="drift gate", reason=_TAMPERED, at=at),)}
            )
        previous = found.document  # what does not verify decides nothing, and is replaced
        kept = previous.decisions if previous is not None and previous.content == judgement.verdict.content else ()
        return judgement.verdict.model_copy(update={"decisions": kept})

    with drift_index(store, key, heads).writing(judgement.verdict.partition):
        return document.update(renewed)


def read_verdict(store: ObjectStore, key: Key, partition: str) -> Verdict | None:
    """The partition's verdict; None where there is none.

    Raises:
        IntegrityError: it was changed by hand, signed with another key, or belongs to another partition.
    """
    return verdict_of(store, key, partition).read()


def training_set(
    store: ObjectStore,
    key: Key,
    materialized: Mapping[str, str],
    own_partition: str | None = None,
    rules: Rules | None = None,
    heads: Heads | None = None,
) -> TrainingSet:
    """The partitions that may train a model.

    Args:
        store: where the verdicts lie.
        key: the signing key.
        materialized: partition -> sha256 of its present transformed content, for every materialized partition.
        own_partition: the partition of the asking run, if it has one; it must be accepted.
        rules: those in force; a verdict by other ones does not hold.
        heads: the newest verdicts that were seen.

    Raises:
        GateRefusalError: a materialized partition has no verdict, one for other content, one by other rules, one that was
            put back or one that does not verify; the run's own partition is not accepted; or none is.
    """
    found = _follow(store, key, sorted(materialized), heads)
    verdicts = {partition: _holding(partition, each, materialized[partition], rules) for partition, each in found.items()}
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


def accept(
    store: ObjectStore,
    key: Key,
    partition: str,
    content: str,
    *,
    who: str,
    reason: str,
    now: datetime,
    heads: Heads | None = None,
) -> Verdict:
    """A person lets this content train, whatever the statistics say; returns the verdict as written.

    Args:
        store: where the verdict lies.
        key: the signing key.
        partition: its key.
        content: sha256 (hex) of its present transformed content; the acceptance holds for no other.
        who: the person, as far as known.
        reason: why, in at least two words.
        now: when, with a time zone.
        heads: the newest verdicts that were seen; the decision becomes newer than these.

    Raises:
        GateRefusalError: the reason has no words, there is no verdict, or it speaks of other content.
    """
    return _decide(store, key, partition, content, Decision(action="accept", who=who, reason=reason, at=now), heads)


def refuse(
    store: ObjectStore,
    key: Key,
    partition: str,
    content: str,
    *,
    who: str,
    reason: str,
    now: datetime,
    heads: Heads | None = None,
) -> Verdict:
    """A person takes an acceptance back, their own or the gate's: the contrary of `accept`, with its arguments and errors."""
    return _decide(store, key, partition, content, Decision(action="refuse", who=who, reason=reason, at=now), heads)


def fingerprint(accepted: TrainingSet) -> str:
    """sha256 (hex) of the accepted partitions and their contents: equal for equal training sets, whatever was rejected."""
    pairs = sorted((part.partition, part.content) for part in accepted.accepted)
    return hashlib.sha256(canonical_json({"accepted": pairs})).hexdigest()


def _follow(store: ObjectStore, key: Key, partitions: Iterable[str], heads: Heads | None) -> dict[str, Found[Verdict]]:
    """The verdicts of partitions as they lie in the store; those that are not the newest that were seen, as a problem."""
    documents = {partition: verdict_of(store, key, partition, heads) for partition in partitions}
    return dict(zip(documents, follow_all(list(documents.values())), strict=True))


_TAMPERED = "the verdict that lay here was changed by hand, so what people had decided is not known; a person decides anew"


def _read_sample(store: ObjectStore, part: PartitionRef, sha256: str) -> pl.DataFrame:
    try:
        data = store.get(sample_key(part))
    except KeyError:
        data = b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(
            f"The reference sample {sample_key(part)} is missing or was changed; run the check `drift` on transformed for "
            f"{part.partition} again, which writes it anew."
        )
    return pl.read_parquet(data)


def _holding(partition: str, found: Found[Verdict], content: str, rules: Rules | None) -> Verdict:
    """The verdict that holds for this content of the partition."""
    again = f"Run the check `drift` on transformed for {partition}; no model is trained before."
    if found.problem is not None:
        raise GateRefusalError(f"{found.problem} No model is trained before.")
    verdict = found.document
    if verdict is None:
        raise GateRefusalError(f"Partition {partition} is materialized but has no drift verdict. {again}")
    if verdict.content != content:
        raise GateRefusalError(f"Partition {partition} has changed since its drift verdict. {again}")
    if rules is not None and not rules.holds(verdict.rules):
        raise GateRefusalError(f"Partition {partition} was judged by other rules than are in force now. {again}")
    return verdict


def require_reason(partition: str, action: str, reason: str) -> None:
    """See that a reason has at least two words.

    Raises:
        GateRefusalError: it has not.
    """
    if not has_words(reason):
        raise GateRefusalError(
            f"To {action} partition {partition}, give a reason in words: who reads the model's card will see it."
        )


def _decide(store: ObjectStore, key: Key, partition: str, content: str, decision: Decision, heads: Heads | None) -> Verdict:
    require_reason(partition, decision.action, decision.reason)

    def decided(found: Found[Verdict]) -> Verdict:
        if found.problem is not None:
            raise GateRefusalError(found.problem)
        if found.document is None:
            raise GateRefusalError(f"Partition {partition} has no drift verdict; run its check `drift` first.")
        if found.document.content != content:
            raise GateRefusalError(
                f"Partition {partition} has changed since its drift verdict; run its check `drift` again first."
            )
        return found.document.model_copy(update={"decisions": (*found.document.decisions, decision)})

    with drift_index(store, key, heads).writing(partition):
        return verdict_of(store, key, partition, heads).update(decided)
