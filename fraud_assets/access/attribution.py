"""Run attribution: who signed in and started a run, noted as its tag by the server that asked for the password."""

import getpass
import os
from contextvars import ContextVar

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext  # Dagster exports it nowhere else

SIGNED_IN_TAG = "fraud/signed_in"
UNVERIFIED = "unverified:"

# Set for the time of a request by our web server alone (`fraud_assets.access.webserver`), in whose process runs are submitted.
# What a request says of itself, in a header or as a tag, counts for nothing.
signed_in: ContextVar[str] = ContextVar("signed_in", default="")


class AttributingRunCoordinator(dg.QueuedRunCoordinator):
    """Dagster's queue, which notes who signed in and submitted a run; nobody's name stays where nobody did."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Note the name, then queue the run."""
        run = context.dagster_run
        name = signed_in.get()
        if name or SIGNED_IN_TAG in run.tags:
            self._instance.add_run_tags(run.run_id, {SIGNED_IN_TAG: name})
            run = run.with_tags({**run.tags, SIGNED_IN_TAG: name})
        return super().submit_run(context._replace(dagster_run=run))


def who_started(run: dg.DagsterRun, typed: str) -> str:
    """Who decides by a run: the one who signed in and submitted it, whatever name he typed; else that name, unverified."""
    return run.tags.get(SIGNED_IN_TAG) or who_asks(typed)


def who_is_at_the_shell(typed: str) -> str:
    """Who decides by a command: the operating system's user, as `shell:NAME`; for a name that was typed nobody vouches."""
    if typed.strip():
        return who_asks(typed)
    import pwd  # noqa: PLC0415 - where there is one

    # By the id of the process; variables such as USER can be set to anything.
    try:
        return f"shell:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # in a container, say
        return f"shell:{os.getuid()}"


def who_asks(typed: str = "") -> str:
    """A name that somebody typed, by default that of this process' user, marked as unverified."""
    name = typed.strip()
    try:
        name = name or getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return name if name.startswith(UNVERIFIED) else f"{UNVERIFIED}{name}"


def is_verified(who: str) -> bool:
    """Whether the one who decided was known to be who the name says."""
    return not who.startswith(UNVERIFIED)
