"""What a sealed process can still do, as a user without rights: as whoever serves files usually is."""

import json
import os
import subprocess
import sys

import pytest

ATTACK = """
import ctypes, json, os, resource, socket, subprocess, sys, tempfile, time
from fraud_core.system.sandbox import seal
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(54321); os.setuid(54321)
null = subprocess.DEVNULL  # whoever reads our output need not wait for the victim's end
victim = subprocess.Popen(["sleep", "30"], env={"SECRET": "x"}, stdout=null, stderr=null)
own = tempfile.NamedTemporaryFile()
environment = f"/proc/{victim.pid}/environ"

def done(attempt):
    try:
        attempt()
    except (OSError, ValueError):
        return False
    return True

def trace():
    if ctypes.CDLL(None, use_errno=True).ptrace(16, victim.pid, 0, 0):
        raise OSError

attempts = {
    "another file": lambda: open("/etc/hostname").close(),
    "an environment": lambda: open(environment).close(),
    "a socket": lambda: socket.socket().close(),
    "more files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "its own file's removal": lambda: os.rename(own.name, own.name + "x"),
    "a trace": trace,
    "a signal": lambda: os.kill(victim.pid, 0),
}
began = time.monotonic()
while not done(attempts["an environment"]) and time.monotonic() - began < 10:  # a process that just began is closed to all
    time.sleep(0.01)
could = [name for name, attempt in attempts.items() if name in ("an environment", "a signal") and done(attempt)]
had = seal()
print(json.dumps({"could": could, "had": had, "can": [name for name, attempt in attempts.items() if done(attempt)]}), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and the limits are Linux's")
def test_a_sealed_process_of_a_user_without_rights_reaches_nothing_and_without_landlock_its_own_processes_and_names() -> None:
    environment = os.environ | {"TMPDIR": "/tmp"}
    done = subprocess.run([sys.executable, "-c", ATTACK], check=True, env=environment, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert told["could"] == ["an environment", "a signal"]  # before it was sealed
    assert "user" not in told["had"]
    if "landlock" in told["had"]:
        assert told["can"] in ([], ["a signal"])  # signals since Landlock's version 6
    else:
        assert set(told["can"]) <= {"its own file's removal", "a trace", "a signal"}
