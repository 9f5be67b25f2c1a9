"""Metadata of materializations and checks for Dagster's pages: Markdown tables, sentences, figures."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from fraud_assets.access.attribution import is_verified
from fraud_assets.reports import plots
from fraud_assets.reports.markdown import markdown_table
from fraud_core import gate
from fraud_core.features.catalogue import catalogue_of
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.gate import FeatureResult, Judgement, Verdict

WORST_PLOTTED = 3
MOST_LISTED = 25  # features in a table, beside those that drifted


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


def verdict_metadata(verdict: Verdict, judgement: Judgement, declared: Declared = NOTHING) -> dict[str, Any]:
    """A verdict as metadata: the table of features, the findings, and plots of the worst features."""
    known = catalogue_of(declared).by_name
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
                        known[result.name].unit,
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
    """Features with what was measured, those that block first; `blocking` names these. Of many, those within their bounds that
    moved least are counted alone; the verdict's document has all."""
    ordered = sorted(results, key=lambda one: (one.name not in blocking, not one.drifted))
    shown = [result for at, result in enumerate(ordered) if at < MOST_LISTED or result.name in blocking or result.drifted]
    rest = len(ordered) - len(shown)
    table = markdown_table(
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
            for result in shown
        ]
    )
    return f"{table}\n\n{rest} more features moved less, and lie within their bounds." if rest else table
