"""`fraud pipeline`: every partition in order through the jobs that the Dagster UI launches, then a training."""

import json
import sys
import time
from dataclasses import replace
from typing import Annotated

from typer import Option

from fraud_core.settings import Settings


def pipeline(
    settings: Settings,
    file: Annotated[
        list[str] | None, Option(metavar="FILE", help="Read this file (or glob) instead of the TOML's paths; repeatable.")
    ] = None,
    until: Annotated[str | None, Option(metavar="KEY", help="Stop after this partition.")] = None,
    each: Annotated[bool, Option("--each", help="Train after every partition, as automation would.")] = False,
) -> None:
    """Take every partition through the asset graph in order, then train.

    The last line of standard output is one JSON object.
    """
    from tqdm import tqdm

    from fraud_assets.installation import Installation
    from fraud_cli.commands.spread import spread
    from fraud_cli.jobs import Pipeline, rolling, say, summary, tell_refusals

    begin = time.monotonic()
    installation = Installation.load(settings, tuple(file or ()), say)
    installation.artifacts.check_writable()
    installation.rules()  # refuses before any work where the TOML changes them
    if each:
        installation = replace(installation, source=rolling(installation.source))
    jobs = Pipeline(installation)
    say(f"{installation.source.name} -> {installation.artifacts.store.url}")
    say("reading source files")
    jobs.run("land")
    tell_refusals(installation)
    keys = jobs.keys(until)
    if settings.broker is not None and not each:
        spread(installation, jobs.instance, keys, say)
    bar = tqdm(keys, desc="partitions", unit="partition", file=sys.stderr, disable=None)
    for key in bar:
        bar.set_postfix_str(key)
        if bar.disable:  # no terminal: a line each
            say(key)
        for failed in jobs.make(key):
            bar.write(f"{key}: {failed.check_name}: {failed.description}", file=sys.stderr)
        if each:
            jobs.train()
    jobs.export_labels()
    if not each:
        jobs.train()
    jobs.load_history()
    jobs.deliver()
    print(json.dumps(summary(installation, keys, time.monotonic() - begin)))
