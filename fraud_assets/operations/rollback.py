"""Roll back, withdraw or restore a champion by hand: one conditional write of the pointer, with who and why."""

from datetime import UTC, datetime

import dagster as dg

from fraud_assets.access.attribution import who_started
from fraud_assets.installation import Installation
from fraud_core.errors import PromotionError
from fraud_core.models.registry import point_at, read_latest


def rollback(installation: Installation, version: str, *, who: str, reason: str) -> str:
    """Point at an older version and mark the present champion withdrawn, in one write; returns the withdrawn version.

    Raises:
        PromotionError: there is no champion, the version is the champion, it is unknown or withdrawn, or there is no reason.
    """
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    latest = read_latest(store, key)
    if latest is None:
        raise PromotionError("There is no champion yet, so there is nothing to roll back.")
    if version == latest.version:
        raise PromotionError(f"Version {version} is the champion already.")
    _require(installation, version, reason)
    now, withdraw, heads = datetime.now(UTC), latest.version, installation.heads
    point_at(store, version, key, how="rollback", who=who, at=now, reason=reason, withdraw=withdraw, heads=heads)
    return latest.version


def restore(installation: Installation, version: str, *, who: str, reason: str) -> None:
    """Undo a rollback: the withdrawn version may serve again, and does.

    Raises:
        PromotionError: the version is unknown or not withdrawn, or there is no reason.
    """
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    latest = read_latest(store, key)
    if latest is None or version not in latest.withdrawn:
        raise PromotionError(f"Version {version} is not withdrawn; `fraud models` lists what there is.")
    _require(installation, version, reason)
    now, heads = datetime.now(UTC), installation.heads
    point_at(store, version, key, how="restoration", who=who, at=now, reason=reason, heads=heads)


def _require(installation: Installation, version: str, reason: str) -> None:
    if not installation.artifacts.store.exists(f"models/{version}/manifest.json"):
        raise PromotionError(f"There is no version {version}; `fraud models` lists what there is.")
    if not any(word.isalpha() for word in reason.split()):
        raise PromotionError("Give a reason in words; whoever is on call next will want to know.")


def build_jobs(installation: Installation) -> list[dg.JobDefinition]:
    """Rollback and its undoing, for the Dagster UI."""

    @dg.op(config_schema={"version": str, "reason": str, "who": dg.Field(str, default_value="")})
    def roll_back(context: dg.OpExecutionContext) -> None:
        config = context.op_config
        withdrawn = rollback(
            installation, config["version"], who=who_started(context.run, config["who"]), reason=config["reason"]
        )
        context.log.info(f"{config['version']} is champion again; {withdrawn} is withdrawn.")

    @dg.op(config_schema={"version": str, "reason": str, "who": dg.Field(str, default_value="")})
    def lift_withdrawal(context: dg.OpExecutionContext) -> None:
        config = context.op_config
        restore(installation, config["version"], who=who_started(context.run, config["who"]), reason=config["reason"])

    @dg.job(description="Point at an older version and withdraw the present champion, with a reason.")
    def rollback_champion() -> None:
        roll_back()

    @dg.job(description="Undo a rollback: a withdrawn version serves again.")
    def restore_champion() -> None:
        lift_withdrawal()

    return [rollback_champion, restore_champion]
