"""`fraud users`: who may sign in to the desk. A password is shown once and stored only as its hash."""

import getpass
import sys
from typing import Annotated, Literal

from pydantic_core import PydanticCustomError
from typer import Argument, Option

from fraud_core.errors import SettingsError
from fraud_core.settings import Settings


def users(
    settings: Settings,
    action: Literal["create", "list", "reset", "revoke", "role", "card"],
    name: Annotated[str | None, Argument(help="Who; small letters, digits, dots, dashes and underscores.")] = None,
    role: Annotated[Literal["analyst", "lead"], Option(help="create, role: as what.")] = "analyst",
) -> None:
    """Let people into the desk, and out: create, list, reset, revoke, role, card."""
    from fraud_core.access.users import Users
    from fraud_core.signing.card_numbers import hashed_card
    from fraud_core.signing.keys import card_key
    from fraud_core.storage.database import open_database

    known = Users(open_database(settings))
    if action != "list" and not name:
        raise SettingsError("Name the person: `fraud users create NAME --role analyst`.")
    if name is None or action == "list":
        everybody = known.list()
        if not everybody:
            print("There are no users yet; `fraud users create NAME` makes one.")
        for user in everybody:
            state = f"revoked {user.revoked:%Y-%m-%d %H:%M}" if user.revoked else "may sign in"
            own = f", {len(user.cards)} own card(s)" if user.cards else ""
            print(f"{user.name:20} {user.role:8} {state:26} since {user.created:%Y-%m-%d}{own}")
    elif action in {"create", "reset"}:
        user, password = known.create(name, role) if action == "create" else known.reset(name)
        print(f"{user.name} may sign in as {user.role}. The password is not shown again:", file=sys.stderr)
        print(password)  # alone on standard output
    elif action == "role":
        print(f"{name} is {known.change_role(name, role).role} from the next click on.")
    elif action == "card":
        # Kept as its keyed hash; its cases are not theirs to judge.
        known.add_card(name, hashed_card(_asked_card(), card_key(settings)))
        print(f"{name} will not be given cases of that card.")
    else:
        known.revoke(name)  # whoever is signed in is out with the next click
        print(f"{name} may not sign in any more.")


def _asked_card() -> str:
    """The number of a card, as payments have it, asked for without showing it."""
    from fraud_core.transactions.transaction import card_of

    asked = getpass.getpass("Card number or token (not shown): ") if sys.stdin.isatty() else sys.stdin.readline()
    try:
        card = card_of(asked)
    except PydanticCustomError as error:
        raise SettingsError(f"The card {error.message()}; type its number as your payments have it, or pipe it in.") from None
    assert card is not None
    return card.get_secret_value()
