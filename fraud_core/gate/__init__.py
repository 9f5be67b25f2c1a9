"""The drift gate: which partitions may train a model. Pure functions over the object store; Dagster shows what they say.

A verdict is a signed file, `drift/<partition>.json`, bound to the content it judged. The training set is the materialized
partitions whose verdict holds for their present content and accepts them. Nothing else is asked: neither Dagster's records nor
the run. `judging` computes a verdict, `past` chooses what it compares with, `records` keeps it, and `rules` is what the source's
TOML declares of it, which nobody changes without a trace.
"""

from fraud_core.gate.findings import MINIMUM_ROWS
from fraud_core.gate.judging import Walk, judge, position, walk_forward
from fraud_core.gate.records import (
    accept,
    accepted_before,
    drift_index,
    fingerprint,
    load_past,
    read_verdict,
    record,
    refuse,
    require_reason,
    training_set,
)
from fraud_core.gate.rules import Rules, confirm, rules_in_force, take_as_restored
from fraud_core.gate.verdict import (
    NATURAL_PARTITIONS,
    Decision,
    FeatureResult,
    Finding,
    Judgement,
    PartitionRef,
    Past,
    ReferencePart,
    TrainingSet,
    Verdict,
    VerdictSummary,
    explain,
    verdict_key,
)

__all__ = [
    "MINIMUM_ROWS",
    "NATURAL_PARTITIONS",
    "Decision",
    "FeatureResult",
    "Finding",
    "Judgement",
    "PartitionRef",
    "Past",
    "ReferencePart",
    "Rules",
    "TrainingSet",
    "Verdict",
    "VerdictSummary",
    "Walk",
    "accept",
    "accepted_before",
    "confirm",
    "drift_index",
    "explain",
    "fingerprint",
    "judge",
    "load_past",
    "position",
    "read_verdict",
    "record",
    "refuse",
    "require_reason",
    "rules_in_force",
    "take_as_restored",
    "training_set",
    "verdict_key",
    "walk_forward",
]
