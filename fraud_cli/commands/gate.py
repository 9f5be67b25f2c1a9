"""`fraud accept`, `refuse`, `confirm`, `calibrate`: a person's word on the drift gate, and how the gate would have judged."""

import sys
from typing import Annotated

from typer import Argument, Option

from fraud_cli.commands.models import Who, Why
from fraud_core.settings import Settings

Partition = Annotated[str, Argument(help="The partition's key, such as 2024-07.")]


def accept(settings: Settings, partition: Partition, reason: Why, who: Who = "") -> None:
    """Let a partition train although the drift gate rejected it; for its present content only."""
    from fraud_cli.jobs import overrule

    overrule(settings, "accept", partition, who=who, reason=reason)
    print(f"{partition} is accepted. The next training takes that into account.")


def refuse(settings: Settings, partition: Partition, reason: Why, who: Who = "") -> None:
    """Keep a partition from training, or take an acceptance back."""
    from fraud_cli.jobs import overrule

    overrule(settings, "refuse", partition, who=who, reason=reason)
    print(f"{partition} is refused. The next training takes that into account.")


def confirm(
    settings: Settings,
    reason: Why,
    who: Who = "",
    restored: Annotated[
        bool, Option("--restored", help="Instead: the store was restored from a backup; take it as it is, and go on.")
    ] = False,
) -> None:
    """Let the gate decide by the rules that the source's TOML declares by now."""
    from fraud_assets.access.attribution import who_is_at_the_shell
    from fraud_assets.installation import Installation
    from fraud_assets.operations.overruling import confirm_rules_of

    print(confirm_rules_of(Installation.load(settings), who=who_is_at_the_shell(who), reason=reason, restored=restored))


def calibrate(
    settings: Settings,
    simulated: Annotated[
        bool, Option("--simulated", help="Also false alarms and power on simulated partitions (ten minutes).")
    ] = False,
) -> None:
    """How the drift gate would have judged the partitions at hand, walking forward."""
    from datetime import UTC, datetime

    from tqdm import tqdm

    from fraud_assets.installation import Installation
    from fraud_assets.reports import calibration
    from fraud_core import gate
    from fraud_core.gate.statistics import scipy_detector
    from fraud_core.training_data.transform import source_features

    installation = Installation.load(settings)
    features = source_features(installation.source)
    names = [feature.name for feature in features]
    carried = ["card"] if installation.source.columns.card is not None else []
    keys = tqdm(installation.transformed(), desc="judging", unit="partition", file=sys.stderr, disable=None)
    judgements = gate.walk_forward(  # by the gate's own reference; nothing is recorded
        ((key, installation.artifacts.scan("transformed", key).select([*names, *carried]).collect()) for key in keys),
        features=features,
        settings=installation.source.drift,
        seed=settings.seed,
        detector=scipy_detector,
        now=datetime.now(UTC),
    )
    print(f"### {installation.source.name}, partition by partition\n\n{calibration.walk_table(judgements)}")
    if simulated:
        print(f"\n{calibration.report(scipy_detector)}")
