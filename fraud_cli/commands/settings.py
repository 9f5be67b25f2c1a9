"""`fraud settings`: what is in force; and the settings that every command begins with."""

import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError
from typer import Option

from fraud_core.errors import SettingsError
from fraud_core.settings import Settings, env_example
from fraud_core.system.private import keep_private

Home = Annotated[Path | None, Option(help="Folder that holds all state (default: FRAUD_HOME, or ./.fraud).")]
SourceConfig = Annotated[Path | None, Option(help="TOML of the data source (default: FRAUD_SOURCE).")]


def load_settings(home: Home = None, source_config: SourceConfig = None) -> Settings:
    """The settings by environment and .env, and by what the command line says; makes keys and databases private.

    Raises:
        SettingsError: one cannot be used; its value, which may be a secret, is not said.
    """
    given: dict[str, Any] = {"home": home, "source": source_config}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:  # its own text shows the value
        wrong = "; ".join(f"FRAUD_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"A setting cannot be used: {wrong}. `fraud settings --example` explains each.") from error
    repaired = keep_private(settings)
    if repaired is not None:
        print(f"fraud: {repaired}", file=sys.stderr)
    return settings


def settings(
    example: Annotated[bool, Option("--example", help="Print .env.example instead.")] = False,
    home: Home = None,
    source_config: SourceConfig = None,
) -> None:
    """Show the settings in force; secrets are not shown."""
    if example:  # which helps whoever has one that cannot be used
        print(env_example(), end="")
        return
    for name, value in load_settings(home, source_config):
        print(f"FRAUD_{name.upper()}={'' if value is None else value}")
