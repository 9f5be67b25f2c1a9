"""Judge the labels of the accepted partitions before they train (see `fraud_core.gate.labels`)."""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_assets.installation import Installation
from fraud_assets.training.candidates import fixed_threads
from fraud_assets.training.rows import CardCodes, Data
from fraud_assets.training.simple_score import cross_fitted
from fraud_core.errors import IntegrityError
from fraud_core.gate import PartitionRef, TrainingSet
from fraud_core.gate.labels import (
    Labelled,
    LabelVerdict,
    is_impossible,
    judge_labels,
    read_label_verdicts,
    record_labels,
    require_judged,
)
from fraud_core.models.bundle import read_bundle
from fraud_core.models.registry import read_latest
from fraud_core.models.scorer import Scorer
from fraud_core.storage.artifacts import fingerprint
from fraud_core.training_data.transform import source_features


def judge_training_labels(installation: Installation, allowed: TrainingSet) -> list[LabelVerdict]:
    """Judge the labels of every accepted partition that are others than were judged, and record it; the verdicts, in time order.

    Args:
        allowed: what the drift gate accepts, partitions whose labels are held included.

    Raises:
        GateRefusalError: a verdict does not verify.
    """
    store, key, data = installation.artifacts.store, installation.artifacts.signing_key, installation.training_data()
    scorer, now = _champion(installation), datetime.now(UTC)
    version = "" if scorer is None else scorer.bundle.version
    known = read_label_verdicts(store, key, [part.partition for part in allowed.accepted], installation.heads)
    labelled = {part: _labelled(data, part) for part in allowed.accepted}
    new = [part for part, each in labelled.items() if not _is_judged(known.get(part.partition), each.snapshot, version)]
    simple = _simple_scores(installation, data, labelled) if new and scorer is None else {}
    for part in new:
        others = [one for name, one in known.items() if name != part.partition and not one.is_held]
        held = {name for name, one in known.items() if one.is_held}
        verdict = judge_labels(
            labelled[part],
            _scores(data, part, scorer) if scorer is not None and len(labelled[part].labels) else simple.get(part.partition),
            version,
            [each.rate for other, each in labelled.items() if other != part and other.partition not in held],
            [one.auc for one in others if one.auc is not None and one.champion],
            known.get(part.partition),
            now,
            [one.auc for one in others if one.auc is not None and one.champion == version and one.is_accepted_fall],
        )
        known[part.partition] = record_labels(store, key, verdict, installation.heads)
    return [known[part.partition] for part in allowed.accepted]


def _is_judged(known: LabelVerdict | None, snapshot: str, champion: str) -> bool:
    """Whether labels were judged as far as they can be: by a champion's scores, or while there is none by a simple model's."""
    return known is not None and known.snapshot == snapshot and bool(known.champion or (not champion and known.auc is not None))


def _labelled(data: Data, part: PartitionRef) -> Labelled:
    frame = settled(data, part)
    return Labelled(
        ref=part,
        snapshot=snapshot_of(part, frame),
        ids=frame["transaction_id"].to_list(),
        labels=frame["label"].to_numpy(),
        times=frame["timestamp"].dt.epoch("us").to_numpy(),
        cards=CardCodes().codes(frame["card"]) if "card" in frame.columns and len(frame) else None,
        mature_before=data.outcomes.mature_before,
    )


def _simple_scores(
    installation: Installation, data: Data, labelled: Mapping[PartitionRef, Labelled]
) -> dict[str, npt.NDArray[np.float64]]:
    """Cross-fitted scores; of what has an impossible rate already nothing is learned."""
    rates = {part: each.rate for part, each in labelled.items()}
    wrong = [
        part.partition
        for part, each in labelled.items()
        if is_impossible(each, [rate for other, rate in rates.items() if other != part])
    ]
    parts = {part.partition: part for part, each in labelled.items() if len(each.labels)}
    with fixed_threads(installation.settings.threads):
        return cross_fitted(
            list(parts),
            lambda name: _rows_of(data, parts[name]).collect(),
            source_features(installation.source),
            wrong,
            installation.settings.seed,
        )


def require_judged_labels(installation: Installation, allowed: TrainingSet) -> None:
    """See that the present labels of every partition that trains were judged.

    Raises:
        GateRefusalError: those of one were not.
    """
    data = installation.training_data()
    snapshots = {part.partition: snapshot_of(part, settled(data, part)) for part in allowed.accepted}
    require_judged(installation.artifacts.store, installation.artifacts.signing_key, allowed, snapshots, installation.heads)


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


def _scores(data: Data, part: PartitionRef, scorer: Scorer) -> npt.NDArray[np.float64] | None:
    """The champion's scores; None where it cannot score these payments, since it knows other features."""
    try:
        return scorer.score_features(_rows_of(data, part).collect())
    except pl.exceptions.ColumnNotFoundError:
        return None


def _champion(installation: Installation) -> Scorer | None:
    """The champion, if there is one that can score what there is."""
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    latest = read_latest(store, key)
    if latest is None:
        return None
    try:
        return Scorer(read_bundle(store, latest.version, key), installation.settings.threads)
    except IntegrityError:
        return None
