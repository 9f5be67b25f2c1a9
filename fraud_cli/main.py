"""The command `fraud`: which commands there are, and how they end. Each is declared where it is carried out."""

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.main import get_command

from fraud_cli.commands.data import data, served, simulate
from fraud_cli.commands.database.keys import keys
from fraud_cli.commands.database.schema import db
from fraud_cli.commands.database.users import users
from fraud_cli.commands.gate import accept, calibrate, confirm, refuse
from fraud_cli.commands.models import client_types, models, restore, rollback
from fraud_cli.commands.pipeline import pipeline
from fraud_cli.commands.servers import exporter, serve, ui, webserver, worker
from fraud_cli.commands.settings import load_settings, settings
from fraud_cli.commands.source import source
from fraud_cli.commands.up import up
from fraud_cli.everywhere import everywhere
from fraud_core.errors import FraudError

# A command is a function of the installation's settings, its arguments and options; None, which it returns, is exit status 0.
# What is heavy it imports itself, so that the others start fast, and run where that is not installed.
COMMANDS: tuple[Callable[..., int | None], ...] = (
    *(pipeline, up, models, rollback, restore, accept, refuse, confirm, calibrate, serve, exporter, webserver, worker),
    *(source, data, db, keys, ui, users, served, simulate, settings, client_types),
)

_ABOUT = "Card-payment fraud detection that you run yourself."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: well; 1: an error that the message explains; 2: wrong usage; 130: stopped by Ctrl-C.
    """
    os.environ.update(everywhere(os.environ))  # before a library makes its connections, and for all that is started
    # Dagster announces which of its own parts are young, once for each; that is for developers.
    warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)")
    try:
        get_command(application()).main(argv, prog_name="fraud")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def application() -> typer.Typer:
    """All commands, in plain text: scripts and logs read what they print."""
    app = typer.Typer(
        help=_ABOUT,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_ABOUT)(_every)
    for command in COMMANDS:
        # What stands after the first argument is an argument: `fraud webserver -- --port 3000`.
        passes_on = {"allow_interspersed_args": command is not webserver}
        told = inspect.getdoc(command) or ""
        app.command(command.__name__.replace("_", "-"), help=told, short_help=told.split("\n")[0], context_settings=passes_on)(
            _declared(command)
        )
    return app


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"fraud-detection {metadata.version('fraud-detection')}")
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", help="Say which release this is.", is_eager=True, callback=_tell_version)]


def _every(version: _Version = False) -> None:
    """What stands before a command."""


def _declared(command: Callable[..., int | None]) -> Callable[..., None]:
    """The command with the options that all have, which say where the installation is, in the place of its settings."""
    own = inspect.signature(command).parameters
    common = inspect.signature(load_settings).parameters

    def run(**given: Any) -> None:
        if "settings" in own:
            where = {name: given.pop(name) for name in common}
            raise typer.Exit(_status(lambda: command(load_settings(**where), **given)))
        raise typer.Exit(_status(lambda: command(**given)))

    taken = [one for name, one in own.items() if name not in {"settings", *common}]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*taken, *common.values())]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _status(command: Callable[[], int | None]) -> int:
    """The exit status of a command; an error that its user can act on is said in a sentence."""
    try:
        return command() or 0
    except (FraudError, OSError) as error:
        print(f"fraud: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing.startswith("fraud_"):
            raise
        print(f"fraud: {without(missing)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fraud: stopped; what was finished is kept, and the same command goes on from there.", file=sys.stderr)
        return 130


def without(module: str) -> str:
    """What to say where a library is not installed that a part of the product needs: which one, and how to get it."""
    ours = "fraud-detection"
    named = {module.lower().replace("_", "-"), *(name.lower() for name in metadata.packages_distributions().get(module, ()))}
    asked = [re.match(r"""([\w.-]+).*?extra == ["'](\w+)["']""", one) for one in metadata.requires(ours) or ()]
    extras = {found[2] for found in asked if found is not None and found[1].lower() in named}
    extra = next((one for one in ("pipeline", "scorer", "ui", "distributed", "alibi") if one in extras), "pipeline")
    return f"This needs {module}, which is not installed here. Install that part: `pip install '{ours}[{extra}]'`."


if __name__ == "__main__":
    sys.exit(main())
