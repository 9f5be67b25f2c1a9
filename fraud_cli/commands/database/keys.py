"""`fraud keys`: API keys, made, listed and revoked. A token is shown once and stored only as its hash."""

import sys
from typing import Annotated, Literal

from typer import Argument, Option

from fraud_core.errors import SettingsError
from fraud_core.settings import Settings


def keys(
    settings: Settings,
    action: Literal["create", "list", "revoke"],
    name: Annotated[str | None, Argument(help="create: who will hold it; revoke: the key's id.")] = None,
    scope: Annotated[
        list[str] | None, Option(metavar="SCOPE", help="score, label, metrics or admin; repeatable (default: score).")
    ] = None,
) -> None:
    """Make, list and revoke API keys."""
    from fraud_core.access.api_keys import ApiKeys

    if action != "list" and not name:
        raise SettingsError("Name who will hold the key (create), or the id of the key to revoke.")
    known = ApiKeys.of(settings)
    if name is None or action == "list":
        listed = known.list()
        if not listed:
            print("There are no keys yet; `fraud keys create NAME` makes one.")
        for key in listed:
            state = f"revoked {key.revoked:%Y-%m-%d %H:%M}" if key.revoked else "valid"
            print(f"{key.id}  {state:26} {', '.join(sorted(key.scopes)):20} made {key.created:%Y-%m-%d %H:%M} for {key.name}")
    elif action == "create":
        key, token = known.create(name, scope or ["score"])
        print(f"Key {key.id} for {key.name} ({', '.join(sorted(key.scopes))}). Its token is not shown again:", file=sys.stderr)
        print(token)  # alone on standard output, so that it can be piped into a secret store
    else:
        key = known.revoke(name)  # from the next second on nobody is let in with it
        print(f"Key {key.id} of {key.name} is revoked.")
