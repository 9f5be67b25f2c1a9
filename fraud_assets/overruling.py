"""A person overrules the gate: jobs that accept or refuse a partition's present content, shown as the check's new record."""

import dagster as dg

from fraud_assets.attribution import who_started
from fraud_assets.evaluations import log_evaluation
from fraud_assets.project import Project
from fraud_assets.transformed import decide_partition, decision_metadata, sentence

CHECK = dg.AssetCheckKey(dg.AssetKey("transformed"), "drift")
BY_PERSON_TAG = "fraud/by_person"  # of runs that somebody starts by hand and watches


class Decide(dg.Config):
    """What a person decides about."""

    partition: str
    reason: str
    who: str = ""


def build_jobs(project: Project) -> list[dg.JobDefinition]:
    """The two jobs, for the Dagster UI and the command line."""

    @dg.op
    def accept(context: dg.OpExecutionContext, config: Decide) -> None:
        _decide(project, context, config, accept=True)

    @dg.op
    def refuse(context: dg.OpExecutionContext, config: Decide) -> None:
        _decide(project, context, config, accept=False)

    @dg.job(
        description="Let a partition train although the drift gate rejected it, for its present content only; with a reason.",
        tags={BY_PERSON_TAG: "yes"},
    )
    def accept_partition() -> None:
        accept()

    @dg.job(
        description="Keep a partition from training, or take an acceptance back; with a reason.",
        tags={BY_PERSON_TAG: "yes"},
    )
    def refuse_partition() -> None:
        refuse()

    return [accept_partition, refuse_partition]


def _decide(project: Project, context: dg.OpExecutionContext, config: Decide, *, accept: bool) -> None:
    """Record the decision, then evaluate the check anew: the verdict with its decisions is what the check says."""
    who = who_started(context.run, config.who)
    verdict = decide_partition(project, config.partition, accept=accept, who=who, reason=config.reason)
    context.log.info(sentence(verdict))
    log_evaluation(
        context,
        CHECK,
        config.partition,
        passed=verdict.is_accepted,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(verdict),
        metadata={"kind": verdict.kind, "content": verdict.content, **decision_metadata(verdict)},
        blocking=True,
    )
