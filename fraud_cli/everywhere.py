"""Environment variables of this process and of every one it starts: no telemetry, no proxy before loopback, UTF-8."""

from collections.abc import Mapping

from fraud_core.access.addresses import direct_to_loopback

# Dagster, MLflow, DVC, Gradio and what they bring. Dagster's own switch is in a file, and one that is not found means "send".
SEND_NOTHING = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def everywhere(variables: Mapping[str, str]) -> dict[str, str]:
    """What is set beside the variables that are there."""
    return {**SEND_NOTHING, **direct_to_loopback(variables), "PYTHONUTF8": "1"}
