"""The labels of a partition, judged at training time: do they look like what became of payments, or were they set wrong?

At landing no label is mature, so this cannot be the drift verdict's. It is a signed verdict of its own, bound to the partition's
content and to a hash of its labels at the time. What is held is left out of training and of every measurement, and waits for a
person; everything else trains. A fraud of a new kind is held at most once: an acceptance holds for later labels of the same
content too, as long as these give no reason that was not accepted, and for other partitions whose frauds the same
champion ranks no worse.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from fraud_core.errors import GateRefusalError
from fraud_core.evaluation.metrics import roc_auc
from fraud_core.gate.verdict import FOLDER, Decision, PartitionRef, TrainingSet, verdict_index
from fraud_core.signing.keys import Key
from fraud_core.storage.documents import Counted, Found, SignedDocument, follow_all
from fraud_core.storage.heads import Heads
from fraud_core.storage.index import Index
from fraud_core.storage.objects import ObjectStore
from fraud_core.units.time import to_microseconds

FEW_FRAUDS = 20  # fewer prove nothing
FEW_PARTITIONS = 3  # so many others tell what rate is possible
RATE_FACTOR = 4.0  # a rate so many times above the highest, or below the lowest, of the others is no fraud rate
MOST_FRAUD = 0.5  # a larger share of frauds is none, whatever the others have
UNRELATED_AUC = 0.7  # frauds that a champion ranks no better are not those that it knows
UNRELATED_SIMPLE_AUC = 0.6  # the same of a simple model that learned from the other partitions alone
FALL = 0.1  # of the area under the ROC curve, below the median of the others
SURE = 3.0  # standard errors
FLIPPED = 0.2  # share of the frauds that were known: so many taken back, or so many added after maturity
RELEASED = 0.5

Name = Literal["impossible_rate", "reversed", "unrelated", "flipped", "fall"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelFinding(_Model):
    """Why labels are held; `message` is a sentence for people. All but `fall` look like wrong labels."""

    name: Name
    message: str


class LabelVerdict(Counted):
    """What is said of one partition's labels.

    `sequence` counts the changes of this verdict (0: written before they were counted). `snapshot` is the hash of content and
    labels that were judged, `champion` the version whose scores were asked (empty: none was there, and a simple model's were,
    where it could be learned), `frauds` the ids of the payments that count as fraud.
    """

    format: Literal[1] = 1
    partition: str
    content: str
    snapshot: str
    champion: str
    rows: int
    frauds: tuple[str, ...]
    auc: float | None
    mature_before: datetime
    findings: tuple[LabelFinding, ...]
    created_at: datetime
    decisions: tuple[Decision, ...] = ()
    accepted_findings: tuple[Name, ...] = ()

    @property
    def is_accepted_fall(self) -> bool:
        """Whether a person accepted that the champion hardly knows these frauds."""
        unknown = {finding.name for finding in self.findings} & {"fall", "unrelated"}
        return bool(unknown) and unknown <= set(self.accepted_findings)

    @property
    def is_held(self) -> bool:
        """Whether these labels may not train: by a person's refusal, or for a reason that no person accepted."""
        if self.decisions and self.decisions[-1].action == "refuse":
            return True
        return not {finding.name for finding in self.findings} <= set(self.accepted_findings)

    def explain(self) -> str:
        """A sentence for people: why the labels are held, and how a person accepts them."""
        cause = "; ".join(finding.message for finding in self.findings)
        if self.decisions and self.decisions[-1].action == "refuse":
            cause = f"they were refused by {self.decisions[-1].who} ({self.decisions[-1].reason})"
        return (
            f"The labels of partition {self.partition} are held: {cause}. It is left out of training; correct the labels, or if "
            f'they are right accept them with `fraud accept {self.partition} --reason "..."`.'
        )


@dataclass(frozen=True)
class Labelled:
    """A partition with its labels as they hold at present.

    Attributes:
        ref: the partition.
        snapshot: hash of its content and these labels.
        ids, labels, times: n transaction ids, bool[n] (True: fraud), int64[n] microseconds since 1970.
        cards: int64[n] codes of cards; None where the source has none.
        mature_before: the instant before which labels are mature.
    """

    ref: PartitionRef
    snapshot: str
    ids: Sequence[str]
    labels: npt.NDArray[np.bool_]
    times: npt.NDArray[np.int64]
    cards: npt.NDArray[np.int64] | None
    mature_before: datetime

    @property
    def rate(self) -> float:
        """Share of fraud."""
        return float(self.labels.mean()) if len(self.labels) else 0.0


def judge_labels(
    now: Labelled,
    scores: npt.NDArray[np.float64] | None,
    champion: str,
    rates: Sequence[float],
    aucs: Sequence[float],
    before: LabelVerdict | None,
    at: datetime,
    accepted_falls: Sequence[float] = (),
) -> LabelVerdict:
    """Judge a partition's labels. Pure: nothing is read or written.

    Args:
        now: the partition and its labels.
        scores: float64[n], the champion's; where there is none, those of a simple model that did not see the partition, or None.
        champion: its version; empty where there is none.
        rates: fraud rates of the other accepted partitions whose labels are not held.
        aucs: areas under the ROC curve of others, as they were judged by champions.
        before: the last verdict on this partition; of the same content, it tells which labels were known, and what was accepted.
        at: when.
        accepted_falls: areas of others by this champion's scores, whose fall a person accepted.
    """
    before = before if before is not None and before.content == now.ref.content else None
    frauds = tuple(np.asarray(now.ids, dtype=object)[now.labels].tolist())
    auc = None
    findings = [*_rate(now, rates), *([] if before is None else _flips(now, before, set(frauds)))]
    if scores is not None and len(frauds) >= FEW_FRAUDS and not now.labels.all():
        auc = roc_auc(now.labels, scores)
        findings += _relation(now, auc, aucs, accepted_falls) if champion else _simple_relation(now, auc)
    return LabelVerdict(
        partition=now.ref.partition,
        content=now.ref.content,
        snapshot=now.snapshot,
        champion=champion,
        rows=len(now.labels),
        frauds=frauds,
        auc=auc,
        mature_before=now.mature_before,
        findings=tuple(findings),
        created_at=at,
        decisions=() if before is None else before.decisions,
        accepted_findings=() if before is None else before.accepted_findings,
    )


def is_impossible(now: Labelled, rates: Sequence[float]) -> bool:
    """Whether the share of frauds is none, given those of other partitions."""
    return bool(_rate(now, rates))


def _rate(now: Labelled, rates: Sequence[float]) -> list[LabelFinding]:
    rows, count = len(now.labels), int(now.labels.sum())
    others = [rate for rate in rates if rate > 0]
    if now.rate > MOST_FRAUD and count >= FEW_FRAUDS:
        return [
            LabelFinding(name="impossible_rate", message=f"{count} of {rows:,} are fraud ({now.rate:.2%}), most of all payments")
        ]
    if len(others) < FEW_PARTITIONS:
        return []
    low, high = min(others) / RATE_FACTOR, max(others) * RATE_FACTOR
    is_high = now.rate > high and count >= FEW_FRAUDS
    is_low = now.rate < low and rows * min(others) >= FEW_FRAUDS
    if not is_high and not is_low:
        return []
    said = f"{count} of {rows:,} are fraud ({now.rate:.2%}), where the others have {min(others):.2%} to {max(others):.2%}"
    return [LabelFinding(name="impossible_rate", message=said)]


def _flips(now: Labelled, before: LabelVerdict, frauds: set[str]) -> list[LabelFinding]:
    """Labels that were known and are others now. One that comes before its payment's labels are mature is no flip."""
    known = set(before.frauds)
    settled = now.times < to_microseconds(before.mature_before)
    was_there = {one for one, old in zip(now.ids, settled, strict=True) if old}
    taken_back, added = len(known - frauds), len((frauds - known) & was_there)
    bound = max(FEW_FRAUDS, FLIPPED * len(known))
    if max(taken_back, added) <= bound:
        return []
    said = f"of {len(known)} frauds that were known, {taken_back} were taken back, and {added} came after all labels were known"
    return [LabelFinding(name="flipped", message=said)]


def _relation(now: Labelled, auc: float, aucs: Sequence[float], accepted_falls: Sequence[float]) -> list[LabelFinding]:
    """How the labels lie to the champion's scores. Frauds that it knows no worse than accepted ones are no news."""
    error = _error(now, auc)
    said = f"a fraud ranks above a legitimate payment {auc:.1%} of the time by the champion's scores"
    wrong = _no_relation(auc + error, UNRELATED_AUC, said)
    is_known = bool(accepted_falls) and auc + np.sqrt(2) * error >= min(accepted_falls)  # both areas have their error
    if wrong or is_known or len(aucs) < FEW_PARTITIONS:
        return [finding for finding in wrong if finding.name == "reversed" or not is_known]
    usual = float(np.median(aucs))
    if auc + error >= usual - FALL:
        return []
    return [LabelFinding(name="fall", message=f"{said}, where {usual:.1%} is usual: wrong labels, or fraud of a new kind")]


def _simple_relation(now: Labelled, auc: float) -> list[LabelFinding]:
    """How the labels lie to the scores of a simple model, which knows less than a champion: a fall is not asked for."""
    said = f"a fraud ranks above a legitimate payment {auc:.1%} of the time by what the other partitions' labels teach"
    return _no_relation(auc + _error(now, auc), UNRELATED_SIMPLE_AUC, said)


def _no_relation(highest: float, least: float, said: str) -> list[LabelFinding]:
    if highest < RELEASED:
        return [LabelFinding(name="reversed", message=f"{said}: the relation is reversed")]
    if highest < least:
        return [LabelFinding(name="unrelated", message=f"{said}: labels and scores have nothing to do with each other")]
    return []


def _error(now: Labelled, auc: float) -> float:
    """How far the area may lie from the true one. Frauds of one card are alike, so cards are counted, not frauds."""
    frauds = int(now.labels.sum()) if now.cards is None else len(np.unique(now.cards[now.labels]))
    legitimate = len(now.labels) - int(now.labels.sum())
    return SURE * max(_auc_error(auc, frauds, legitimate), _auc_error(0.5, frauds, legitimate) / 2)


def _auc_error(auc: float, frauds: int, legitimate: int) -> float:
    """Standard error of the area under the ROC curve (Hanley and McNeil 1982)."""
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (frauds - 1) * (first - auc**2) + (legitimate - 1) * (second - auc**2)
    return float(np.sqrt(max(spread, 0.0) / (frauds * legitimate)))


# ---- kept


def label_verdict_key(partition: str) -> str:
    """Key of the verdict on a partition's labels in the store."""
    return f"{_PREFIX}{partition}.json"


_PREFIX = f"{FOLDER}/labels-"


def label_verdict_of(store: ObjectStore, key: Key, partition: str, heads: Heads | None = None) -> SignedDocument[LabelVerdict]:
    """The verdict on a partition's labels, in its place in the store."""
    restored = (
        'if the store was restored from a backup: `fraud confirm --restored --reason "..."`, then materialize preprocessor.'
    )
    return SignedDocument(
        LabelVerdict,
        label_verdict_key(partition),
        store,
        key,
        heads,
        what=f"The verdict on the labels of {partition}",
        repair=f"Restore it from a backup; {restored}",
        renew=f'Materialize preprocessor after `fraud accept {partition} --reason "..."`, which decides anew on what lies there; '
        f"{restored}",
        named={"partition": partition},
        error=GateRefusalError,
    )


class LabelSummary(_Model):
    """What planning has to know of a verdict on labels, as its index holds it."""

    sequence: int
    content: str
    is_held: bool


def label_index(store: ObjectStore, key: Key, heads: Heads | None = None) -> Index[LabelSummary]:
    """The index of the verdicts on labels, for planning; one that does not verify is not in it."""
    return verdict_index(
        "labels", LabelSummary, store, key, heads, _PREFIX, lambda one: label_verdict_of(store, key, one).look().document
    )


def held_labels(store: ObjectStore, key: Key, contents: Mapping[str, str], heads: Heads | None = None) -> dict[str, LabelVerdict]:
    """The verdicts by which the labels of these partitions (key -> content hash) are held.

    Raises:
        GateRefusalError: a verdict does not verify, or is not the newest that was seen.
    """
    verdicts = read_label_verdicts(store, key, contents, heads)
    return {
        partition: verdict
        for partition, verdict in verdicts.items()
        if verdict.content == contents[partition] and verdict.is_held
    }


def read_label_verdicts(
    store: ObjectStore, key: Key, partitions: Iterable[str], heads: Heads | None = None
) -> dict[str, LabelVerdict]:
    """The verdicts on the labels of partitions that were judged; those that are seen are remembered in `heads`.

    Raises:
        GateRefusalError: one does not verify, is not the newest that was seen, or is gone.
    """
    found: dict[str, LabelVerdict] = {}
    documents = [label_verdict_of(store, key, partition, heads) for partition in partitions]
    for each in follow_all(documents):
        if each.problem is not None:
            raise GateRefusalError(each.problem)
        if each.document is not None:
            found[each.document.partition] = each.document
    return found


def record_labels(store: ObjectStore, key: Key, verdict: LabelVerdict, heads: Heads | None = None) -> LabelVerdict:
    """Write a verdict, signed, as the next change of it; returns it as written.

    What people decided about this very content meanwhile, while it was judged, is carried over.

    Raises:
        StoreConflictError: others keep writing the same verdict.
    """

    def renewed(found: Found[LabelVerdict]) -> LabelVerdict:
        present = found.document
        if present is None or present.content != verdict.content or len(present.decisions) <= len(verdict.decisions):
            return verdict
        return verdict.model_copy(update={"decisions": present.decisions, "accepted_findings": present.accepted_findings})

    with label_index(store, key, heads).writing(verdict.partition):
        return label_verdict_of(store, key, verdict.partition, heads).update(renewed)


def decide_on_labels(
    store: ObjectStore, key: Key, partition: str, content: str, decision: Decision, heads: Heads | None = None
) -> LabelVerdict | None:
    """Record a person's decision on the held labels of this content, or a refusal; None where there is nothing to accept.

    Raises:
        GateRefusalError: the verdict does not verify.
    """
    document = label_verdict_of(store, key, partition, heads)
    present = document.read()  # be it the newest that was seen or not: the decision is newer
    if present is None or present.content != content:
        return None
    if decision.action == "accept" and not present.is_held and follow_all([document])[0].problem is None:
        return None
    with label_index(store, key, heads).writing(partition):
        return document.update(lambda found: decide_labels(found.document or present, decision))


def decide_labels(verdict: LabelVerdict, decision: Decision) -> LabelVerdict:
    """The verdict with a person's decision: an acceptance covers the reasons that there are now."""
    accepted = tuple(finding.name for finding in verdict.findings) if decision.action == "accept" else ()
    return verdict.model_copy(update={"decisions": (*verdict.decisions, decision), "accepted_findings": accepted})


def without_held(
    store: ObjectStore, key: Key, allowed: TrainingSet, own_partition: str | None = None, heads: Heads | None = None
) -> TrainingSet:
    """The training set less the partitions whose labels are held.

    Raises:
        GateRefusalError: the run's own partition is held, all are, or a verdict does not verify or is not
            the newest that was seen.
    """
    held = held_labels(store, key, {part.partition: part.content for part in allowed.accepted}, heads)
    if own_partition in held:
        raise GateRefusalError(held[own_partition].explain())
    if len(held) == len(allowed.accepted):
        raise GateRefusalError(next(iter(held.values())).explain())
    kept = tuple(part for part in allowed.accepted if part.partition not in held)
    moved = tuple(part for part in allowed.accepted if part.partition in held)
    rejected = tuple(sorted((*allowed.rejected, *moved), key=lambda part: part.partition))
    return replace(allowed, accepted=kept, rejected=rejected, held={name: one.explain() for name, one in held.items()})


def require_judged(
    store: ObjectStore, key: Key, allowed: TrainingSet, snapshots: Mapping[str, str], heads: Heads | None = None
) -> None:
    """See that the present labels of every partition that trains were judged.

    Args:
        snapshots: partition -> hash of its present labels.

    Raises:
        GateRefusalError: those of one were not.
    """
    verdicts = read_label_verdicts(store, key, [part.partition for part in allowed.accepted], heads)
    for part in allowed.accepted:
        verdict = verdicts.get(part.partition)
        if verdict is None or verdict.snapshot != snapshots[part.partition]:
            raise GateRefusalError(
                f"The labels of partition {part.partition} have changed since they were judged, or never were; "
                "materialize preprocessor, which judges them."
            )
