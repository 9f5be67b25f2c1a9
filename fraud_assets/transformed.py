"""`transformed`: features and label; and `drift`, the gate's verdict on each partition."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from fraud_assets import delivery, plots
from fraud_assets.alibi import alibi_detector
from fraud_assets.attribution import is_verified
from fraud_assets.io_manager import markdown_table
from fraud_assets.learning.labelled import decide_on_labels
from fraud_assets.partitioning import look_back, partitions_def
from fraud_assets.project import Project
from fraud_core import features, gate
from fraud_core.artifacts import Table
from fraud_core.drift import scipy_detector
from fraud_core.errors import PartitionError
from fraud_core.gate import Decision, FeatureResult, Judgement, Verdict
from fraud_core.transform import build_transformed, source_features

WORST_PLOTTED = 3


def build(project: Project) -> list[dg.AssetsDefinition | dg.AssetChecksDefinition]:
    """The asset and its checks."""
    source = project.source
    keys = partitions_def(source)

    @dg.asset(
        deps=[dg.AssetDep("raw", partition_mapping=look_back(source))],
        partitions_def=keys,
        io_manager_key="artifacts",
        group_name="data",
        kinds={"polars", "parquet"},
    )
    def transformed(context: dg.AssetExecutionContext) -> Table:
        """Model-ready features and the label, one row a transaction; no personal column."""
        return build_transformed(source, project.artifacts, context.partition_key)

    @dg.asset_check(asset=transformed, partitions_def=keys, blocking=True)
    def drift(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Does this partition look like the accepted ones before it? A rejected one trains no model, however that is started."""
        try:
            judgement = judge_partition(project, context.partition_key)
            verdict = gate.record(project.artifacts.store, project.artifacts.signing_key, judgement, project.heads)
            delivery.note_verdict(project, verdict, context.log.warning)
        except Exception as error:
            context.log.exception("the drift check could not judge")
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"The partition could not be judged, so it trains no model: {error}",
                metadata={"error": type(error).__name__},
            )
        return dg.AssetCheckResult(
            passed=verdict.is_accepted,
            severity=dg.AssetCheckSeverity.ERROR,
            description=sentence(verdict),
            metadata=verdict_metadata(verdict, judgement),
        )

    return [transformed, drift]


def judge_partition(project: Project, key: str) -> Judgement:
    """The gate's judgement of a materialized partition; nothing is recorded.

    Raises:
        GateRefusalError: the rules of the gate were changed, which nobody has confirmed.
        IntegrityError: a sample is missing or was changed.
    """
    source, artifacts, rules = project.source, project.artifacts, project.rules(record=True)
    contents = {partition: pointer.content for partition, pointer in project.transformed().items()}
    past = gate.load_past(artifacts.store, artifacts.signing_key, key, contents, source.drift, rules, project.heads)
    return gate.judge(
        partition=key,
        content=contents[key],
        frame=artifacts.scan("transformed", key).collect(),
        features=source_features(source),
        past=past,
        position=gate.position(source, key),
        settings=source.drift,
        seed=project.settings.seed,
        detector=scipy_detector if project.settings.drift_detector == "scipy" else alibi_detector,
        now=datetime.now(UTC),
        rules=rules,
    )


def decide_partition(project: Project, key: str, *, accept: bool, who: str, reason: str) -> Verdict:
    """Record a person's decision on a partition's present content.

    Raises:
        GateRefusalError: the reason has no words, or the partition was not judged yet.
        PartitionError: it was not materialized.
    """
    pointer = project.artifacts.pointer("transformed", key)
    if pointer is None:
        raise PartitionError(f"transformed {key} was not materialized, so there is nothing to decide on.")
    decide = gate.accept if accept else gate.refuse
    store, signing_key = project.artifacts.store, project.artifacts.signing_key
    now, content = datetime.now(UTC), pointer.content
    present = gate.read_verdict(store, signing_key, key)
    if accept and present is not None and present.content == content and present.is_accepted:
        gate.require_reason(key, "accept", reason)
        if decide_on_labels(project, key, content, Decision(action="accept", who=who, reason=reason, at=now)) is not None:
            return present  # its labels were what held it
    verdict = decide(store, signing_key, key, content, who=who, reason=reason, now=now, heads=project.heads)
    delivery.note_verdict(project, verdict, project.tell)
    return verdict


def sentence(verdict: Verdict) -> str:
    """What a verdict says, and who overruled it, for people."""
    if not verdict.is_accepted:
        return gate.explain(verdict)
    if verdict.overruled_by is not None:
        return f"Accepted by {verdict.overruled_by.who}: {verdict.overruled_by.reason}"
    if verdict.kind == "bootstrap":
        return "Bootstrap: accepted unjudged, as one of the source's first partitions, to which later ones are compared."
    known = [finding.message for finding in verdict.findings if finding.name == "known_step"]
    if known:
        return f"Accepted: {known[0]}."
    if verdict.former is not None and [part.partition for part in verdict.reference] == [verdict.partition]:
        return "Accepted: it looks like what it was when it was accepted before."
    return f"Accepted: it looks like the {len(verdict.reference)} accepted partitions before it."


def decision_metadata(verdict: Verdict) -> dict[str, Any]:
    """Who decided what about the content, and why; nothing where nobody did."""
    shown: dict[str, Any] = {}
    for name, decision in (("accepted_by", verdict.overruled_by), ("refused_by", verdict.refused_by)):
        if decision is not None:
            shown |= {name: decision.who, "reason": decision.reason, "decided_at": decision.at.isoformat()}
            if not is_verified(decision.who):
                shown["unverified"] = dg.MetadataValue.md(plots.warning("nobody signed in: the name is what somebody typed"))
    return shown


def verdict_metadata(verdict: Verdict, judgement: Judgement) -> dict[str, Any]:
    """A verdict as metadata: the table of features, the findings, and plots of the worst features."""
    shown: dict[str, Any] = {
        "kind": verdict.kind,
        "content": verdict.content,
        "change_of_verdict": verdict.sequence,
        **verdict_numbers(verdict),
        "reference": ", ".join(part.partition for part in verdict.reference) or "none",
        "rules": verdict.rules[:12],
        **decision_metadata(verdict),
    }
    if verdict.confirmed is not None:
        by = verdict.confirmed
        shown["rules_confirmed_by"] = f"{by.who}, {by.at.isoformat()}: {by.reason}"
    if verdict.long is not None:
        parts = ", ".join(part.partition for part in verdict.long.reference)
        shown["long_reference"] = f"{verdict.long.kind}: {parts}"
        shown["since_then"] = dg.MetadataValue.md(_table(verdict.long.worst, blocking_features(verdict, slow=True)))
    if verdict.findings:
        findings = [{"finding": f.name, "blocks": f.blocking, "what": f.message} for f in verdict.findings]
        shown["findings"] = dg.MetadataValue.md(markdown_table(findings))
    if verdict.features:
        shown["features"] = dg.MetadataValue.md(_table(verdict.worst, blocking_features(verdict)))
        if not judgement.reference.is_empty():
            pictures = [
                plots.as_markdown_image(
                    plots.feature_shift_plot(
                        result.name,
                        judgement.reference[result.name].to_numpy(),
                        judgement.current[result.name].to_numpy(),
                        features.BY_NAME[result.name].unit,
                    ),
                    result.name,
                )
                for result in _plotted(verdict)
            ]
            shown["worst_features"] = dg.MetadataValue.md("\n\n".join(pictures))
    return shown


def verdict_numbers(verdict: Verdict) -> dict[str, int | float]:
    """The verdict as numbers, of which Dagster draws a curve over the partitions."""
    watched = [result for result in verdict.features if result.role == "blocks"]
    numbers: dict[str, int | float] = {
        "rows": verdict.rows,
        "blocking_findings": sum(finding.blocking for finding in verdict.findings),
        "drifted_features": sum(result.drifted for result in watched),
    }
    if watched:
        numbers["times_the_bound"] = max(result.severity for result in watched)
    if verdict.long is not None and verdict.long.features:
        long = [result.severity for result in verdict.long.features if result.role == "blocks"]
        numbers["times_the_bound_since_long_ago"] = max(long, default=0.0)
    return numbers


def blocking_features(verdict: Verdict, *, slow: bool = False) -> frozenset[str]:
    """The features that reject the partition: each by itself, or together with others that have drifted.

    Args:
        verdict: of the gate.
        slow: by the comparison with the long reference, instead of that with the partitions just before.
    """
    names: set[str] = set()
    results = verdict.long.features if slow and verdict.long is not None else verdict.features
    for finding in verdict.findings:
        if not finding.blocking or slow != (finding.name == "slow_drift"):
            continue
        if finding.feature is not None:
            names.add(finding.feature)
        elif finding.name in {"drifted_share", "slow_drift"}:  # so many of them that the share itself blocks
            names |= {result.name for result in results if result.drifted and result.role == "blocks"}
    return frozenset(names)


def _plotted(verdict: Verdict) -> list[FeatureResult]:
    """The features to look at: those that block first, each kind by how far it lies beyond its bound."""
    now, long_ago = blocking_features(verdict), blocking_features(verdict, slow=True)
    return sorted(verdict.worst, key=lambda one: (one.name not in now, one.name not in long_ago, one.role != "blocks"))[
        :WORST_PLOTTED
    ]


def _table(results: Sequence[FeatureResult], blocking: frozenset[str]) -> str:
    """Features with what was measured, those that block first; `blocking` names these."""
    return markdown_table(
        [
            {
                "feature": result.name,
                "blocks": "**yes**" if result.name in blocking else "no" if result.role == "blocks" else "reported only",
                "drifted": "yes" if result.drifted else "no",
                "distance": f"{result.distance:.4f}",
                "beyond noise": f"{result.excess:.4f}",
                "bound": f"{result.bound:.4f}",
                "p (corrected)": f"{result.p_corrected:.2g}",
                "measure": result.measure,
            }
            for result in sorted(results, key=lambda one: one.name not in blocking)
        ]
    )
