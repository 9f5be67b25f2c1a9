"""An object store that counts the requests it is sent."""

from collections import Counter
from typing import Any

from fraud_core.storage.objects import ObjectStore

REQUESTS = ("get", "get_tagged", "get_changed", "get_hashed", "put", "put_if", "exists", "list", "local_path")


class CountingStore:
    """Stands before a store; a listing counts as one request."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        if name in REQUESTS:
            self.asked[name] += 1
        return getattr(self._store, name)

    def take(self) -> int:
        """How many requests there were since the last time."""
        count = self.asked.total()
        self.asked.clear()
        return count
