"""Overrule the gate by hand: jobs that accept or refuse a partition's present content, shown as the check's new record.

And one that lets the rules of the gate be those that the source's TOML declares.
"""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from fraud_assets.access.attribution import who_started
from fraud_assets.installation import Installation
from fraud_assets.operations.judging import decide_partition
from fraud_assets.reports.metadata import decision_metadata, sentence, verdict_numbers
from fraud_assets.runtime.evaluations import log_evaluation
from fraud_assets.runtime.partitioning import partitions_def
from fraud_core import gate
from fraud_core.errors import GateRefusalError

CHECK = dg.AssetCheckKey(dg.AssetKey("transformed"), "drift")
BACKFILL_TAG = "dagster/backfill"
BY_PERSON_TAG = "fraud/by_person"  # of runs that somebody starts by hand and watches


class Decide(dg.Config):
    """Why a person decides so; about which partition, the run knows."""

    reason: str = Field(description="In words; it is signed into the verdict and printed on the card of every model.")
    who: str = Field("", description="Your name, where nobody signs in; it is shown as unverified.")


class Confirm(dg.Config):
    """Why the rules of the gate are changed."""

    reason: str
    who: str = ""
    restored: bool = False


def build_jobs(installation: Installation) -> list[dg.JobDefinition]:
    """The jobs, for the Dagster UI: whoever launches one chooses the partition, and is asked for the reason."""
    keys, by_person = partitions_def(installation.source), {BY_PERSON_TAG: "yes"}

    def deciding(action: str, description: str) -> dg.JobDefinition:
        @dg.op(name=action)
        def decide(context: dg.OpExecutionContext, config: Decide) -> None:
            _decide(installation, context, config, accept=action == "accept")

        # What the launchpad shows once the partition is chosen. An empty reason is refused.
        empty = {"ops": {action: {"config": {"reason": "", "who": ""}}}}
        form = dg.PartitionedConfig(keys, run_config_for_partition_key_fn=lambda _: empty)
        graph = dg.GraphDefinition(f"{action}_partition", node_defs=[decide])
        return graph.to_job(description=description, config=form, tags=by_person)

    @dg.op
    def confirm(context: dg.OpExecutionContext, config: Confirm) -> None:
        who = who_started(context.run, config.who)
        context.log.info(confirm_rules_of(installation, who=who, reason=config.reason, restored=config.restored))

    return [
        deciding(
            "accept", "Let a partition train although the drift gate rejected it, for its present content only; with a reason."
        ),
        deciding("refuse", "Keep a partition from training, or take an acceptance back; with a reason."),
        dg.GraphDefinition("confirm_rules", node_defs=[confirm]).to_job(
            description="Let the gate decide by the rules that the source's TOML declares by now, with a reason; all is judged "
            "anew.",
            tags=by_person,
        ),
    ]


def confirm_rules_of(installation: Installation, *, who: str, reason: str, restored: bool) -> str:
    """Record that a person lets the rules of the gate be changed; returns what that means, in words.

    Args:
        installation: the installation.
        who: the person, as far as known.
        reason: why, in at least two words.
        restored: instead, take the store as it is: it was restored from a backup, and what was seen of it before is forgotten.

    Raises:
        GateRefusalError: the reason has no words, or nothing has changed.
    """
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    if restored:
        return gate.take_as_restored(store, key, who=who, reason=reason, now=datetime.now(UTC), heads=installation.heads)
    changed = gate.confirm(
        store, key, installation.source, who=who, reason=reason, now=datetime.now(UTC), heads=installation.heads
    )
    return f"In force now: {'; '.join(changed)}. Every partition is judged anew, oldest first."


def _decide(installation: Installation, context: dg.OpExecutionContext, config: Decide, *, accept: bool) -> None:
    """Record the decision, then evaluate the check anew: the verdict with its decisions is what the check says."""
    if BACKFILL_TAG in context.run.tags:
        raise GateRefusalError("Decide on one partition at a time, from the launchpad: a backfill would give one reason for all.")
    who, key = who_started(context.run, config.who), context.partition_key
    verdict = decide_partition(installation, key, accept=accept, who=who, reason=config.reason)
    context.log.info(sentence(verdict))
    log_evaluation(
        context,
        CHECK,
        key,
        passed=verdict.is_accepted,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(verdict),
        metadata={"kind": verdict.kind, "content": verdict.content, **verdict_numbers(verdict), **decision_metadata(verdict)},
        blocking=True,
    )
