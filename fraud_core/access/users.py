"""Users of the analyst's desk: who may sign in, as what, and which cards are their own.

Passwords are made here, shown once, and kept as argon2id hashes alone. A person who left is revoked and stays on record, because
labels bear their name.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from sqlalchemy import BigInteger, Column, Engine, Row, String, Table, Text, insert, select, update

from fraud_core.errors import SettingsError
from fraud_core.storage.schema import METADATA, Tables
from fraud_core.units.time import from_microseconds, to_microseconds

if TYPE_CHECKING:
    from argon2 import PasswordHasher

Role = Literal["analyst", "lead"]
ROLES: tuple[Role, ...] = get_args(Role)
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,39}")

_USERS = Table(
    "users",
    METADATA,
    Column("name", String(40), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password", Text, nullable=False),
    Column("created", BigInteger, nullable=False),  # times are microseconds since 1970 UTC
    Column("revoked", BigInteger),
)
_CARDS = Table(
    "user_cards",
    METADATA,
    Column("name", String(40), primary_key=True),
    Column("card", String(32), primary_key=True),
)


@dataclass(frozen=True)
class User:
    """A person. `password` is the argon2id hash, which changes with every new password; `cards` are keyed hashes."""

    name: str
    role: Role
    password: str
    created: datetime
    revoked: datetime | None
    cards: frozenset[str]

    def __repr__(self) -> str:
        return f"User({self.name}, {self.role})"


class Users:
    """The users in the SQL database. Every method may be called from any thread, and raises StoreError where it is gone."""

    def __init__(self, engine: Engine) -> None:
        self._tables = Tables(engine)

    def create(self, name: str, role: str, now: datetime | None = None) -> tuple[User, str]:
        """Let somebody in.

        Returns:
            The user as stored, and the password to hand over: 100 random bits that cannot be shown again.

        Raises:
            SettingsError: the name or the role is none, or the name is taken (also by somebody who was revoked).
        """
        if not _NAME.fullmatch(name):
            raise SettingsError("A name has up to 40 small letters, digits, dots, dashes or underscores, a letter first.")
        if role not in ROLES:
            raise SettingsError(f"A role is one of {', '.join(ROLES)}.")
        if self.find(name) is not None:
            raise SettingsError(f"There is a user {name} already; `fraud users reset {name}` makes a new password.")
        password = made_password()
        row = {"name": name, "role": role, "password": _hashed(password), "created": to_microseconds(now or datetime.now(UTC))}
        self._write(insert(_USERS).values(row))
        return self._required(name), password

    def reset(self, name: str) -> tuple[User, str]:
        """Make a new password for somebody, who is let in again if revoked; whoever is signed in under the name no longer is.

        Raises:
            SettingsError: there is no such user.
        """
        self._required(name)
        password = made_password()
        self._write(update(_USERS).where(_USERS.c.name == name).values(password=_hashed(password), revoked=None))
        return self._required(name), password

    def change_role(self, name: str, role: str) -> User:
        """Give somebody another role, from the next click on.

        Raises:
            SettingsError: there is no such user, or no such role.
        """
        self._required(name)
        if role not in ROLES:
            raise SettingsError(f"A role is one of {', '.join(ROLES)}.")
        self._write(update(_USERS).where(_USERS.c.name == name).values(role=role))
        return self._required(name)

    def revoke(self, name: str, now: datetime | None = None) -> User:
        """Let somebody in no more, from the next click on.

        Raises:
            SettingsError: there is no such user.
        """
        self._required(name)
        moment = to_microseconds(now or datetime.now(UTC))
        self._write(update(_USERS).where(_USERS.c.name == name, _USERS.c.revoked.is_(None)).values(revoked=moment))
        return self._required(name)

    def add_card(self, name: str, card: str) -> User:
        """Note a card (its keyed hash) as somebody's own: its cases are not theirs to judge.

        Raises:
            SettingsError: there is no such user.
        """
        user = self._required(name)
        if card not in user.cards:
            self._write(insert(_CARDS).values(name=name, card=card))
        return self._required(name)

    def list(self) -> list[User]:
        """Everybody, by name, revoked ones too."""
        with self._tables.transaction() as connection:
            rows = connection.execute(select(_USERS).order_by(_USERS.c.name)).all()
            cards = connection.execute(select(_CARDS)).all()
        return [_user(row, frozenset(card for name, card in cards if name == row.name)) for row in rows]

    def find(self, name: str) -> User | None:
        """The user of this name, also if revoked; None where there is none."""
        with self._tables.transaction() as connection:
            row = connection.execute(select(_USERS).where(_USERS.c.name == name)).one_or_none()
            if row is None:
                return None
            cards = connection.execute(select(_CARDS.c.card).where(_CARDS.c.name == name)).scalars().all()
        return _user(row, frozenset(cards))

    def verified(self, name: str, password: str) -> User | None:
        """The living user with this name and password; None for anybody else, after as much work as for a right one."""
        from argon2.exceptions import VerificationError  # noqa: PLC0415 - only where people sign in

        user = self.find(name)
        try:
            _hasher().verify(DUMMY_HASH if user is None else user.password, password)
        except VerificationError:
            return None
        return user if user is not None and user.revoked is None else None

    def _required(self, name: str) -> User:
        user = self.find(name)
        if user is None:
            raise SettingsError(f"There is no user {name}; `fraud users list` names them.")
        return user

    def _write(self, statement: Any) -> None:
        with self._tables.transaction() as connection:
            connection.execute(statement)


def made_password() -> str:
    """Twenty random characters in groups of five, none of which looks like another: 100 bits."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


# The hash of a password that was thrown away: what is verified where there is no user, so that the time tells nothing.
DUMMY_HASH = "$argon2id$v=19$m=19456,t=2,p=1$fm+UO4xNaZaRGyEu0EEEDA$K4zmYMd9espdtRK7GU8Y38jO0gvzsAUdgeju5JDLxt0"


def _hashed(password: str) -> str:
    return _hasher().hash(password)


def _hasher() -> "PasswordHasher":
    """With the cost that OWASP's Password Storage Cheat Sheet names for argon2id: 19 MiB, two passes."""
    from argon2 import PasswordHasher  # noqa: PLC0415 - only where people sign in or are let in

    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def _user(row: Row[Any], cards: frozenset[str]) -> User:
    return User(
        name=row.name,
        role=cast(Role, row.role),
        password=row.password,
        created=from_microseconds(row.created),
        revoked=None if row.revoked is None else from_microseconds(row.revoked),
        cards=cards,
    )
