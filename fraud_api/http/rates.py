"""Rate limiting of requests, shared by all workers of a machine: one number a key, in a file that each maps into memory."""

import fcntl
import mmap
import os
import struct
from pathlib import Path

SLOTS = 65_536
_NUMBER = struct.Struct("=d")


class SharedRate:
    """The generic cell rate algorithm (ITU-T I.371): a slot holds the time at which its key will have used up what it borrowed.

    Args:
        path: the file, made where it is missing.
        rate: requests a second.
        burst: requests that may come at once.
    """

    def __init__(self, path: Path, rate: float, burst: int) -> None:
        self._interval = 1.0 / rate
        self._tolerance = burst / rate
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._descriptor, SLOTS * _NUMBER.size)
        self._slots = mmap.mmap(self._descriptor, SLOTS * _NUMBER.size)

    def take(self, number: int, now: float) -> float:
        """Take one request from a key's budget.

        Args:
            number: of the key.
            now: the machine's monotonic clock, in seconds.

        Returns:
            0.0 where it may go ahead, else the seconds to wait; then nothing was taken.
        """
        at = number % SLOTS * _NUMBER.size
        # A byte range of its own for each key. Held for a microsecond; between threads of one process it would not hold.
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, _NUMBER.size, at)
        try:
            (used_up,) = _NUMBER.unpack_from(self._slots, at)
            if used_up > now + self._tolerance + self._interval:
                used_up = now  # written before the machine was started anew, or under another limit
            ready = max(used_up, now) + self._interval
            if ready - now > self._tolerance:
                return float(ready - now - self._tolerance)
            _NUMBER.pack_into(self._slots, at, ready)
            return 0.0
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, _NUMBER.size, at)

    def close(self) -> None:
        """Release file and memory."""
        self._slots.close()
        os.close(self._descriptor)
