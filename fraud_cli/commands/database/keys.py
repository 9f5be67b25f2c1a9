"""`fraud keys`: API keys, made, listed and revoked. A token is shown once and stored only as its hash."""

import sys

from fraud_core.access.api_keys import ApiKeys
from fraud_core.settings import Settings


def make_key(settings: Settings, name: str, scopes: list[str]) -> int:
    """Make a key and print its token, alone on standard output, so that it can be piped into a secret store."""
    key, token = ApiKeys.of(settings).create(name, scopes)
    print(f"Key {key.id} for {key.name} ({', '.join(sorted(key.scopes))}). Its token is not shown again:", file=sys.stderr)
    print(token)
    return 0


def list_keys(settings: Settings) -> int:
    """Print a line a key."""
    keys = ApiKeys.of(settings).list()
    if not keys:
        print("There are no keys yet; `fraud keys create NAME` makes one.")
    for key in keys:
        state = f"revoked {key.revoked:%Y-%m-%d %H:%M}" if key.revoked else "valid"
        print(f"{key.id}  {state:26} {', '.join(sorted(key.scopes)):20} made {key.created:%Y-%m-%d %H:%M} for {key.name}")
    return 0


def revoke_key(settings: Settings, identity: str) -> int:
    """Revoke a key; from the next second on nobody is let in with it."""
    key = ApiKeys.of(settings).revoke(identity)
    print(f"Key {key.id} of {key.name} is revoked.")
    return 0
