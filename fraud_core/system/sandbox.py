"""A sealed process: it can open no file, reach no other process, and has no more rights than it was started with.

For processes that read what strangers send. Linux's Landlock, where the kernel has it; the limit on open files, everywhere; and
the user `nobody`, where the process was started by root.
"""

import ctypes
import os
import resource
import sys

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same numbers on all of Linux's architectures
_VERSION = 1  # a flag: tell the version instead
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 1, 4, 38  # of prctl(2)
_KILL = 9
_NOBODY = 65_534
# By Landlock's version: what can be forbidden of files; of TCP; and of signals and abstract sockets out of the sandbox.
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_SINCE, _SCOPES_SINCE = 4, 6


def seal() -> tuple[str, ...]:
    """Give up everything but the files that are open already. Whatever will be imported must be by now.

    Returns:
        What of it could be had: `user` (another one), `landlock` (no file, no process outside), `files` (none can be opened).
    """
    had = []
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_SET_DEATH_SIGNAL, _KILL, 0, 0, 0)  # nobody reads what is written after that
        libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            libc.prctl(_SET_DEATH_SIGNAL, _KILL, 0, 0, 0)  # a change of user forgets it
            had.append("user")
        if _landlock(libc):
            had.append("landlock")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    return (*had, "files")


def hide() -> None:
    """Keep other processes of this user, unless they are root's, from reading this one's memory and environment."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def _landlock(libc: ctypes.CDLL) -> bool:
    """Forbid everything that this kernel's Landlock can forbid. A process in it can trace and read none outside, either."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    forbidden = (ctypes.c_uint64 * 3)(
        _FILES[min(version, max(_FILES))], 0b11 if version >= _TCP_SINCE else 0, 0b11 if version >= _SCOPES_SINCE else 0
    )
    words = 3 if version >= _SCOPES_SINCE else 2 if version >= _TCP_SINCE else 1
    rules = libc.syscall(_CREATE_RULESET, forbidden, ctypes.c_size_t(8 * words), 0)
    if rules < 0:
        return False
    try:
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)
