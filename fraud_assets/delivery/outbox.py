"""The outbox: what other servers are to be told waits on disk, so that none of them can fail or lose anything of ours."""

import fcntl
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_core.errors import IntegrityError
from fraud_core.settings import Settings
from fraud_core.signing import keys
from fraud_core.signing.keys import Key, canonical_json, open_signed, sign
from fraud_core.storage.directory import DirectoryStore


@dataclass(frozen=True)
class Entry:
    """A message that waits, and the file that holds it."""

    path: Path
    body: dict[str, Any]


class Outbox:
    """A queue of signed files in a folder, oldest first. Any process may add; whoever delivers holds a lock of its own."""

    def __init__(self, folder: Path, key: Key) -> None:
        self._store, self._key = DirectoryStore(folder), key

    def put(self, body: Mapping[str, Any]) -> None:
        """Add a message; once this returns, it outlives a crash of the machine.

        Raises:
            StoreError: the disk does not take it.
        """
        self._store.put(f"{time.time_ns():020d}-{secrets.token_hex(4)}.json", canonical_json(sign(body, self._key)))

    def read(self) -> tuple[list[Entry], str]:
        """What waits, oldest first; and in a sentence what is wrong with files that cannot be read, empty where nothing is.

        Those are damaged, were changed by hand, or are signed with another key. They hold up nothing else, and stay, for a key
        may come back.
        """
        entries, wrong = [], []
        for path in self._paths():
            try:
                entries.append(Entry(path, open_signed(path.read_bytes(), self._key, str(path))))
            except IntegrityError as error:
                wrong.append(str(error))
        return entries, f"{' '.join(wrong[:3])} Bring back what was signed, or move it away." if wrong else ""

    def done(self, entry: Entry) -> None:
        """Forget a message that was delivered."""
        entry.path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._paths())

    def _paths(self) -> list[Path]:
        return [self._store.local_path(key) for key in self._store.list("") if key.endswith(".json")]


def data_versions(settings: Settings) -> Outbox:
    """What is to be committed to the data repository."""
    return Outbox(settings.home / "outbox" / "data-versions", keys.signing_key(settings))


def mlflow(settings: Settings) -> Outbox:
    """What is to be logged to MLflow."""
    return Outbox(settings.home / "outbox" / "mlflow", keys.signing_key(settings))


def encoded(document: Any) -> dict[str, Any]:
    """A pydantic document as a message carries it."""
    body: dict[str, Any] = json.loads(document.model_dump_json())
    return body


@contextmanager
def held(path: Path, seconds: float) -> Iterator[bool]:
    """Hold a lock file, alone on this machine; says whether it could be had within so many seconds. It ends with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("a") as lock:
        had = False
        while not had:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                had = True
            if not had and time.monotonic() >= deadline:
                break
            time.sleep(0 if had else 0.05)
        yield had
