"""Claims on review cases: who looks at which. A claim lapses, so that a case that somebody left open comes back."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Column, Engine, Table, Text, delete, or_, select, update

from fraud_core.storage.schema import METADATA, Tables
from fraud_core.units.time import to_microseconds

_CLAIMS = Table(
    "claims",
    METADATA,
    Column("transaction_id", Text, primary_key=True),
    Column("analyst", Text, nullable=False),
    Column("until", BigInteger, nullable=False),  # microseconds since 1970 UTC
)


class Claims:
    """The claims in the SQL database. Safe to share between threads and processes: a case has one holder at a time.

    Every method raises StoreError where the database cannot be used.

    Args:
        engine: see `database.open_database`.
        lasting: how long a claim holds after it was taken or renewed.
    """

    def __init__(self, engine: Engine, lasting: timedelta) -> None:
        self.lasting = lasting
        self._tables = Tables(engine)

    def take(self, candidates: Iterable[str], analyst: str, now: datetime) -> str | None:
        """Claim the first of these cases that nobody else holds; None where all are held."""
        moment = to_microseconds(now)
        until = to_microseconds(now + self.lasting)
        for candidate in candidates:
            insert = self._tables.insert(_CLAIMS).values(transaction_id=candidate, analyst=analyst, until=until)
            # One statement, so that of two who want a case at once the second sees the first's claim.
            free = or_(_CLAIMS.c.until <= moment, _CLAIMS.c.analyst == analyst)
            claim = insert.on_conflict_do_update(
                index_elements=["transaction_id"], set_={"analyst": analyst, "until": until}, where=free
            )
            with self._tables.transaction() as connection:
                if connection.execute(claim.returning(_CLAIMS.c.analyst)).scalar_one_or_none() is not None:
                    return candidate
        return None

    def renew(self, case: str, analyst: str, now: datetime) -> bool:
        """Hold a case for as long again; False where it lapsed or belongs to somebody else."""
        mine = (_CLAIMS.c.transaction_id == case, _CLAIMS.c.analyst == analyst, _CLAIMS.c.until > to_microseconds(now))
        with self._tables.transaction() as connection:
            changed = connection.execute(update(_CLAIMS).where(*mine).values(until=to_microseconds(now + self.lasting)))
            return changed.rowcount == 1

    def release(self, case: str, analyst: str) -> None:
        """Let a case of one's own go."""
        with self._tables.transaction() as connection:
            connection.execute(delete(_CLAIMS).where(_CLAIMS.c.transaction_id == case, _CLAIMS.c.analyst == analyst))

    def held(self, now: datetime) -> dict[str, str]:
        """Case -> who holds it now."""
        with self._tables.transaction() as connection:
            rows = connection.execute(
                select(_CLAIMS.c.transaction_id, _CLAIMS.c.analyst).where(_CLAIMS.c.until > to_microseconds(now))
            ).all()
        return {row.transaction_id: row.analyst for row in rows}
