"""The labels of the accepted partitions, judged before they train (see `fraud_core.gate.labels`)."""

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_assets.learning.rows import CardCodes, Data
from fraud_assets.project import Project
from fraud_core.artifacts import fingerprint
from fraud_core.bundle import read_bundle, read_latest
from fraud_core.errors import IntegrityError
from fraud_core.gate import PartitionRef, TrainingSet
from fraud_core.gate.labels import (
    Labelled,
    LabelVerdict,
    decide_labels,
    judge_labels,
    read_label_verdict,
    record_labels,
    require_judged,
)
from fraud_core.gate.verdict import Decision
from fraud_core.scorer import Scorer


def judge_training_labels(project: Project, allowed: TrainingSet) -> list[LabelVerdict]:
    """Judge the labels of every accepted partition that are others than were judged, and record it; the verdicts, in time order.

    Args:
        allowed: what the drift gate accepts, partitions whose labels are held included.

    Raises:
        GateRefusalError: a verdict does not verify.
    """
    store, key, data = project.artifacts.store, project.artifacts.signing_key, Data.of(project)
    scorer, now = _champion(project), datetime.now(UTC)
    version = "" if scorer is None else scorer.bundle.version
    before = {part.partition: read_label_verdict(store, key, part.partition) for part in allowed.accepted}
    frames = {part: settled(data, part) for part in allowed.accepted}
    rates = {part: _rate(frame) for part, frame in frames.items()}
    verdicts: list[LabelVerdict] = []
    for part, frame in frames.items():
        known = before[part.partition]
        snapshot = snapshot_of(part, frame)
        if known is not None and known.snapshot == snapshot and (known.champion or scorer is None):
            verdicts.append(known)
            continue
        others = [one for one in before.values() if one is not None and one.partition != part.partition and not one.is_held]
        held = {one.partition for one in before.values() if one is not None and one.is_held}
        verdict = judge_labels(
            Labelled(
                ref=part,
                snapshot=snapshot,
                ids=frame["transaction_id"].to_list(),
                labels=frame["label"].to_numpy(),
                times=frame["timestamp"].dt.epoch("us").to_numpy(),
                cards=CardCodes().codes(frame["card"]) if "card" in frame.columns and len(frame) else None,
                mature_before=data.outcomes.mature_before,
            ),
            None if frame.is_empty() else _scores(data, part, scorer),
            version,
            [rate for other, rate in rates.items() if other != part and other.partition not in held],
            [one.auc for one in others if one.auc is not None],
            known,
            now,
        )
        record_labels(store, key, verdict)
        before[part.partition] = verdict
        verdicts.append(verdict)
    return verdicts


def require_judged_labels(project: Project, allowed: TrainingSet) -> None:
    """See that the present labels of every partition that trains were judged.

    Raises:
        GateRefusalError: those of one were not.
    """
    data = Data.of(project)
    snapshots = {part.partition: snapshot_of(part, settled(data, part)) for part in allowed.accepted}
    require_judged(project.artifacts.store, project.artifacts.signing_key, allowed, snapshots)


def decide_on_labels(project: Project, key: str, content: str, decision: Decision) -> LabelVerdict | None:
    """Record a person's decision on a partition's held labels, or a refusal; None where there is nothing to accept."""
    store, signing_key = project.artifacts.store, project.artifacts.signing_key
    verdict = read_label_verdict(store, signing_key, key)
    if verdict is None or verdict.content != content or (decision.action == "accept" and not verdict.is_held):
        return None
    decided = decide_labels(verdict, decision)
    record_labels(store, signing_key, decided)
    return decided


def settled(data: Data, part: PartitionRef) -> pl.DataFrame:
    """The partition's payments whose outcome is known: transaction_id, timestamp, label, and card where there is one."""
    rows = _rows_of(data, part)
    names = [name for name in ("transaction_id", "timestamp", "label", "card") if name in rows.collect_schema().names()]
    return rows.select(names).collect()


def snapshot_of(part: PartitionRef, frame: pl.DataFrame) -> str:
    """Hash of a partition's content and of the labels that hold."""
    said = frame.select("transaction_id", "label").sort("transaction_id")
    return fingerprint(part.content, said.write_csv())


def _rows_of(data: Data, part: PartitionRef) -> pl.LazyFrame:
    return data.outcomes.settled(data.artifacts.scan("transformed", part.partition))


def _scores(data: Data, part: PartitionRef, scorer: Scorer | None) -> npt.NDArray[np.float64] | None:
    """The champion's scores; None where it cannot score these payments: none is there, or it knows other features."""
    if scorer is None:
        return None
    try:
        return scorer.score_features(_rows_of(data, part).collect())
    except pl.exceptions.ColumnNotFoundError:
        return None


def _rate(frame: pl.DataFrame) -> float:
    return 0.0 if frame.is_empty() else float(frame["label"].mean())  # type: ignore[arg-type]


def _champion(project: Project) -> Scorer | None:
    """The champion, if there is one that can score what there is."""
    store, key = project.artifacts.store, project.artifacts.signing_key
    latest = read_latest(store, key)
    if latest is None:
        return None
    try:
        return Scorer(read_bundle(store, latest.version, key), project.settings.threads)
    except IntegrityError:
        return None
