"""Service: a process that `fraud up` runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """A process of the system.

    Attributes:
        name: what people call it.
        command: what it runs.
        port: where it listens on this machine; None: nowhere.
        url: where people find it; None: they do not.
        variables: its own, beside everybody's.
        setting: the setting that moves it to another port.
        more_ports: which it takes as well.
        is_ready: whether it can be used, where that takes more than a port that is open.
    """

    name: str
    command: tuple[str, ...]
    port: int | None = None
    url: str | None = None
    variables: tuple[tuple[str, str], ...] = ()
    setting: str = ""
    more_ports: tuple[int, ...] = ()
    is_ready: Callable[[], bool] | None = None
