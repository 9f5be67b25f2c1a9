"""`fraud models`, `fraud rollback`, `fraud restore`: the versions, and which one serves."""

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fraud_core.errors import StoreError
from fraud_core.settings import Settings

Version = Annotated[str, Argument(help="A model's version; `fraud models` lists them.")]
Why = Annotated[str, Option(help="Why, in words; it is kept with the decision.")]
Who = Annotated[str, Option(help="Who decides (shown as unverified; default: the operating system's user).")]


def models(settings: Settings) -> None:
    """List the versions: champion, figures, withdrawn."""
    from fraud_assets.installation import Installation
    from fraud_core.evaluation.model_card import ModelCard
    from fraud_core.models.registry import LATEST, latest_model_card, read_latest, versions

    installation = Installation.load(settings)
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    latest = read_latest(store, key)
    if latest is None:
        print("There is no champion yet; `fraud pipeline` makes one.")
        return
    promoted = {change.version: change for change in latest.history}
    print(f"{'version':17} {'state':10} {'promoted (UTC)':17} {'average precision':26} {'fraud rate':10} model")
    for version in sorted(versions(store, key), key=lambda v: promoted[v].sequence if v in promoted else 0):
        state = "champion" if version == latest.version else "withdrawn" if version in latest.withdrawn else ""
        at = f"{promoted[version].at:%Y-%m-%d %H:%M}" if version in promoted else "never"
        figures, stored = "", latest_model_card(store, version, key)
        if stored is not None:
            card = ModelCard.model_validate(stored.body)
            interval = card.holdout.average_precision_interval
            figures = f"{card.holdout.average_precision:.4f} ({interval.low:.4f}-{interval.high:.4f})"
            figures = f"{figures:26} {card.holdout.fraud_rate:<10.3%} {card.kind}"
            figures += "" if stored.is_signed else " (figures unsigned)"
        print(f"{version:17} {state:10} {at:17} {figures}")
    print(f"The pointer is at change {latest.sequence}; this machine has seen change {installation.heads.sequence(LATEST)}.")


def rollback(settings: Settings, version: Version, reason: Why, who: Who = "") -> None:
    """Point at an older version and withdraw the present champion."""
    from fraud_assets.access.attribution import who_is_at_the_shell
    from fraud_assets.installation import Installation
    from fraud_assets.operations import rollback
    from fraud_cli.jobs import deliver

    installation = Installation.load(settings)
    withdrawn = rollback.rollback(installation, version, who=who_is_at_the_shell(who), reason=reason)
    print(f"{version} is champion. {withdrawn} is withdrawn; `fraud restore {withdrawn}` takes that back.", flush=True)
    deliver(installation)


def restore(settings: Settings, version: Version, reason: Why, who: Who = "") -> None:
    """Undo a rollback: a withdrawn version serves again."""
    from fraud_assets.access.attribution import who_is_at_the_shell
    from fraud_assets.installation import Installation
    from fraud_assets.operations import rollback
    from fraud_cli.jobs import deliver

    installation = Installation.load(settings)
    rollback.restore(installation, version, who=who_is_at_the_shell(who), reason=reason)
    print(f"{version} is champion again.", flush=True)
    deliver(installation)


def client_types(
    settings: Settings,
    url: Annotated[
        str, Option(help="Of a running API; its key is read from FRAUD_CLIENT_KEY. Default: the champion in the store.")
    ] = "",
    version: Annotated[str, Option(help="A version in the store, in the champion's place.")] = "",
    out: Annotated[Path | None, Option(help="File that is written; default: standard output.")] = None,
) -> None:
    """Write a typed Python module for the payments of this installation.

    Its class takes the fields that the model declares as keywords, for fraud_client.
    """
    from fraud_client.typed_module import typed_module

    if url:
        from fraud_client.client import FraudClient
        from fraud_client.errors import FraudApiError

        try:
            with FraudClient(url, os.environ.get("FRAUD_CLIENT_KEY")) as client:
                model = client.model()
        except FraudApiError as error:
            raise StoreError(f"The API at {url} does not tell its model: {error}") from None
        text = typed_module(model["source"], model["model_version"], model["fields"])
    else:
        from fraud_assets.installation import Installation
        from fraud_core.fields.declared import NOTHING
        from fraud_core.models.bundle import read_manifest
        from fraud_core.models.registry import read_latest
        from fraud_core.transactions.told_fields import told_fields

        artifacts = Installation.load(settings).artifacts
        latest = None if version else read_latest(artifacts.store, artifacts.signing_key)
        if not version and latest is None:
            raise StoreError("There is no champion yet whose fields could be told; `fraud pipeline` makes one.")
        learned = read_manifest(artifacts.store, version or (latest.version if latest else ""), artifacts.signing_key).learned
        declared = learned.declared or NOTHING
        text = typed_module(learned.source, learned.version, [vars(field) for field in told_fields(declared, declared)])
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
        print(f"{out} written.")
