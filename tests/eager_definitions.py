"""The asset graph as it is, with sensors that look every few seconds: for tests that start Dagster's own processes."""

from fraud_assets.schedule import sensors

sensors.EVERY_SECONDS = 3

from fraud_assets.definitions import defs  # noqa: E402 - the sensors are built on import

__all__ = ["defs"]
