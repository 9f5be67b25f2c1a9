"""Findings of the gate: what is wrong with a partition beside the drift of its features, each with a name and a sentence."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from fraud_core.features.feature import Feature
from fraud_core.gate.verdict import FeatureResult, Finding, FormerSelf, LongComparison, LongReference, Past
from fraud_core.signing.card_numbers import printable
from fraud_core.sources.source import Drift
from fraud_core.training_data.volume import USUAL_FACTOR, usual_rows

REJECTED_SHARE = 0.2  # the partition is rejected when a larger share of its blocking features has drifted,
REJECTED_SEVERITY = 2.0  # or when one of them lies further out than so many times its bound
MINIMUM_ROWS = 500  # fewer cannot tell a shift from chance
UNSEEN_SHARE = 0.001  # of the rows may lie in categories that the reference has never seen ...
UNSEEN_ROWS = 10  # ... or this many in as many rows as the reference has: a small one has not seen every rare category
CONSTANT_PROBABILITY = 1e-6  # a constant column is a finding where chance makes one less often
NULL_DEVIATIONS = 3.0  # standard errors added to the tolerated share of nulls
REWRITTEN_FACTOR = 1.5  # a first partition that is made anew may have more or fewer rows than before by this factor


def blocking_findings(present: pl.DataFrame, features: Sequence[Feature]) -> list[Finding]:
    """What makes a partition unfit even as a bootstrap."""
    findings: list[Finding] = []
    if present.height < MINIMUM_ROWS:
        message = f"{present.height} rows are too few to judge, which takes {MINIMUM_ROWS}"
        findings.append(Finding(name="too_few_rows", message=message, value=present.height, bound=MINIMUM_ROWS))
    for feature in features:
        if feature.name not in present.columns:
            message = f"column {feature.name} is missing"
            findings.append(Finding(name="missing_column", feature=feature.name, message=message, value=1, bound=0))
        elif feature.drift == "blocks" and present[feature.name].null_count() == present.height > 0:
            message = f"column {feature.name} holds no value at all"
            findings.append(Finding(name="null_share", feature=feature.name, message=message, value=1, bound=0))
    return findings


def incomparable(present: pl.DataFrame, reference: pl.DataFrame, features: Sequence[Feature], may_be_new: bool) -> list[Finding]:
    """What cannot be compared.

    With `blocking_findings`, every blocking feature is compared or has a blocking finding; but for one that was declared since
    the reference was judged, which is told, and is then what the next partition is compared with.

    Args:
        may_be_new: whether the reference was judged by other rules than are in force: a person has confirmed what is looked at.
    """
    if reference.height < MINIMUM_ROWS:
        message = f"the accepted partitions before it offer {reference.height} rows to compare with, of at least {MINIMUM_ROWS}"
        return [Finding(name="no_reference", message=message, value=reference.height, bound=MINIMUM_ROWS)]
    findings: list[Finding] = []
    for feature in features:
        if feature.drift != "blocks" or not has_values(present, feature.name) or has_values(reference, feature.name):
            continue
        is_new = may_be_new and feature.name not in reference.columns
        message = (
            f"{feature.name} was declared after the accepted partitions before it were judged: nothing to compare it with yet"
            if is_new
            else f"no accepted partition before it has values of {feature.name} to compare with"
        )
        findings.append(
            Finding(name="no_reference", feature=feature.name, blocking=not is_new, message=message, value=0, bound=1)
        )
    return findings


def warning_findings(
    present: pl.DataFrame, reference: pl.DataFrame, features: Sequence[Feature], past: Past, settings: Drift
) -> list[Finding]:
    """What a comparison of distributions does not see, or should not have to."""
    findings: list[Finding] = []
    for feature in features:
        if not (has_values(present, feature.name) and has_values(reference, feature.name)):
            continue
        samples = [sample[feature.name] for sample in past.samples if feature.name in sample.columns]
        # A sample of before the feature was declared is not one in which it is missing.
        usual = reference[feature.name] if len(samples) == len(past.samples) else pl.concat(samples)
        values = present[feature.name]
        found = [_nulls(values, usual, settings.null_share), _constant(values, usual)]
        if feature.is_category:
            found.append(_unseen(values, samples))
        findings += [
            finding.model_copy(update={"blocking": feature.drift == "blocks"}) for finding in found if finding is not None
        ]
    if past.samples:
        typical = max(float(np.median([verdict.rows for verdict in past.references])), 1.0)
        low, high = usual_rows([typical])
        if not low <= present.height <= high:
            message, ratio = f"{present.height} rows where {typical:.0f} are usual", present.height / typical
            findings.append(Finding(name="volume", blocking=False, message=message, value=ratio, bound=USUAL_FACTOR))
    return findings


def has_values(frame: pl.DataFrame, name: str) -> bool:
    """Whether the frame has the column, and any value in it."""
    return name in frame.columns and frame[name].null_count() < frame.height


def _nulls(values: pl.Series, usual: pl.Series, tolerated: float) -> Finding | None:
    share, before = values.null_count() / len(values), usual.null_count() / len(usual)
    error = np.sqrt(before * (1 - before) * (1 / len(values) + 1 / len(usual)))
    limit = float(before + tolerated + NULL_DEVIATIONS * error)
    if share <= limit:
        return None
    message = f"{values.name} is missing in {share:.1%} of the rows, where {before:.1%} is usual"
    return Finding(name="null_share", feature=values.name, message=message, value=share, bound=limit)


def _constant(values: pl.Series, usual: pl.Series) -> Finding | None:
    if values.min() != values.max():
        return None
    values, usual = values.drop_nulls(), usual.drop_nulls()
    by_chance = float((usual == values[0]).sum() / len(usual)) ** len(values)
    if by_chance >= CONSTANT_PROBABILITY:
        return None
    message = f"{values.name} has one value in all {len(values)} rows"
    return Finding(name="constant_column", feature=values.name, message=message, value=by_chance, bound=CONSTANT_PROBABILITY)


def _unseen(values: pl.Series, seen: Sequence[pl.Series]) -> Finding | None:
    known, values = pl.concat(seen).drop_nulls(), values.drop_nulls()
    strangers = values.filter(~values.is_in(known.unique().implode()))
    share, limit = len(strangers) / len(values), max(UNSEEN_SHARE, UNSEEN_ROWS / len(known))
    if share <= limit:
        return None
    names = strangers.value_counts(sort=True)[values.name].head(3).to_list()
    examples = ", ".join(f"'{printable(name)[:40]}'" for name in names)
    message = f"{share:.1%} of the rows lie in categories of {values.name} never seen before ({examples})"
    return Finding(name="unseen_category", feature=values.name, message=message, value=share, bound=limit)


def drifts(results: Sequence[FeatureResult]) -> list[Finding]:
    """What the comparison of the features says: each that has drifted, and whether too many have."""
    findings: list[Finding] = []
    for result in results:
        if result.drifted:
            findings.append(
                Finding(
                    name="feature_drift",
                    feature=result.name,
                    blocking=result.role == "blocks" and result.severity > REJECTED_SEVERITY,
                    message=f"{result.name} has drifted: {result.measure} {result.distance:.3f}, {result.excess:.3f} beyond "
                    f"noise, {result.severity:.1f} times its bound",
                    value=result.excess,
                    bound=result.bound,
                )
            )
    share, message = _share(results)
    if share > REJECTED_SHARE:
        findings.append(Finding(name="drifted_share", message=message, value=share, bound=REJECTED_SHARE))
    return findings


def slow_drifts(comparison: LongComparison) -> list[Finding]:
    """The same of what does not move on with every acceptance: each feature that lies far away, and whether too many do."""
    places = [part.partition for part in comparison.reference]
    places = [places[0], places[-1]] if len(places) > 1 else places
    where = f"{_LONG[comparison.kind]} ({' to '.join(places)})"
    findings = [
        Finding(
            name="slow_drift",
            feature=result.name,
            blocking=result.severity > REJECTED_SEVERITY,
            message=f"{result.name} has drifted away from {where}: {result.measure} {result.distance:.3f}, {result.excess:.3f} "
            f"beyond noise, {result.severity:.1f} times its bound",
            value=result.excess,
            bound=result.bound,
        )
        for result in comparison.features
        if result.drifted
    ]
    share, message = _share(comparison.features)
    if share > REJECTED_SHARE:
        findings.append(Finding(name="slow_drift", message=f"{message} away from {where}", value=share, bound=REJECTED_SHARE))
    return findings


def known_step(features: Sequence[FeatureResult], step: LongReference) -> Finding:
    """That a partition is unlike the last ones, by these comparisons, but like a step that a person accepted; blocks nothing."""
    worst = max(features, key=lambda result: result.severity)
    how_far = f"{worst.name}: {worst.severity:.1f} times its bound"
    where = f"{_LONG[step.kind]} ({' and '.join(verdict.partition for verdict in step.verdicts)})"
    message = f"it is unlike the partitions before it ({how_far}), but like {where}"
    return Finding(name="known_step", blocking=False, message=message, value=worst.severity, bound=REJECTED_SEVERITY)


def rewritten(rows: int, former: FormerSelf) -> list[Finding]:
    """Whether a partition holds far more or fewer rows than when it was accepted."""
    ratio = rows / max(former.rows, 1)
    if 1 / REWRITTEN_FACTOR <= ratio <= REWRITTEN_FACTOR:
        return []
    message = f"{rows} rows, where it had {former.rows} when it was accepted"
    return [Finding(name="rewritten", message=message, value=ratio, bound=REWRITTEN_FACTOR)]


def _share(results: Sequence[FeatureResult]) -> tuple[float, str]:
    """Which share of the blocking features has drifted, and the same in words."""
    judged = [result for result in results if result.role == "blocks"]
    names = [result.name for result in judged if result.drifted]
    return len(names) / max(len(judged), 1), f"{len(names)} of {len(judged)} features have drifted ({', '.join(names)})"


_LONG = {
    "bootstrap": "the first partitions",
    "confirmed": "what a person accepted last",
    "season": "what was accepted a season ago",
    "rest": "the other first partitions",
}


def as_warning(finding: Finding) -> Finding:
    """The same finding, told but rejecting nothing."""
    return finding.model_copy(update={"blocking": False})
