"""`fraud users`: who may sign in to the desk. A password is shown once and stored only as its hash."""

import getpass
import sys

from pydantic_core import PydanticCustomError

from fraud_core.access.users import User, Users
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import card_key
from fraud_core.storage.database import open_database
from fraud_core.transactions.transaction import card_of


class UserCommands:
    """What can be done to users on the command line. Each command returns an exit status."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._users = Users(open_database(settings))

    def create(self, name: str, role: str) -> int:
        """Let somebody in, and print the password, alone on standard output."""
        return _hand_over(*self._users.create(name, role))

    def reset(self, name: str) -> int:
        """Make a new password, and print it as above."""
        return _hand_over(*self._users.reset(name))

    def list(self) -> int:
        """Print a line a person."""
        users = self._users.list()
        if not users:
            print("There are no users yet; `fraud users create NAME` makes one.")
        for user in users:
            state = f"revoked {user.revoked:%Y-%m-%d %H:%M}" if user.revoked else "may sign in"
            own = f", {len(user.cards)} own card(s)" if user.cards else ""
            print(f"{user.name:20} {user.role:8} {state:26} since {user.created:%Y-%m-%d}{own}")
        return 0

    def revoke(self, name: str) -> int:
        """Let somebody in no more; whoever is signed in is out with the next click."""
        self._users.revoke(name)
        print(f"{name} may not sign in any more.")
        return 0

    def change_role(self, name: str, role: str) -> int:
        """Give somebody another role."""
        print(f"{name} is {self._users.change_role(name, role).role} from the next click on.")
        return 0

    def add_card(self, name: str) -> int:
        """Ask for the number of somebody's own card, which is kept as its keyed hash; its cases are not theirs to judge."""
        asked = getpass.getpass("Card number or token (not shown): ") if sys.stdin.isatty() else sys.stdin.readline()
        try:
            card = card_of(asked)
        except PydanticCustomError as error:
            raise SettingsError(f"The card {error.message()}; type its number as your payments have it, or pipe it in.") from None
        assert card is not None
        self._users.add_card(name, hashed_card(card.get_secret_value(), card_key(self._settings)))
        print(f"{name} will not be given cases of that card.")
        return 0


def _hand_over(user: User, password: str) -> int:
    print(f"{user.name} may sign in as {user.role}. The password is not shown again:", file=sys.stderr)
    print(password)
    return 0
