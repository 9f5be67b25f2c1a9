"""Open the history store that a URL names: SQLite or Redis."""

from fraud_core.errors import SettingsError
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.windows import Plan, Reach
from fraud_core.history.store import HistoryStore
from fraud_core.settings import Settings


def open_history(settings: Settings, reach: Reach, plan: Plan = STANDARD_PLAN) -> HistoryStore:
    """The store that the settings name. Nothing is connected to yet.

    Raises:
        SettingsError: the URL is not one of Redis or Valkey.
    """
    if settings.history is None:
        from fraud_core.history.sqlite import SqliteHistory  # noqa: PLC0415 - only the one that is used

        return SqliteHistory(settings.home / "history.sqlite", reach, settings.history_timeout, plan)
    url = settings.history.get_secret_value()
    scheme, _, rest = url.partition("://")
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    if scheme not in {"redis", "rediss"} or not rest:  # the URL may hold a password, and is not repeated
        raise SettingsError("FRAUD_HISTORY must look like redis://host:6379/0 or rediss://..., or be empty for SQLite.")
    from fraud_core.history.redis import RedisHistory  # noqa: PLC0415 - only where such a URL is used

    return RedisHistory(f"{scheme}://{rest}", reach, settings.history_timeout, plan)
