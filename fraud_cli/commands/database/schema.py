"""`fraud db`: the schema of the SQL database, told and brought up to date."""

from typing import Literal

from fraud_core.settings import Settings


def db(settings: Settings, action: Literal["status", "upgrade"]) -> int:
    """The SQL database: show the version of its schema, or bring it up to date."""
    from fraud_core.storage.database import described, open_database
    from fraud_core.storage.schema import VERSION, upgrade, version_of

    engine = open_database(settings)
    if action == "upgrade":
        before = upgrade(engine)
        happened = "is up to date" if before >= VERSION else f"was upgraded from version {before}"
        print(f"{described(engine)} {happened}: its schema is of version {max(before, VERSION)}.")
        return 0
    found = version_of(engine)
    print(f"{described(engine)} has a schema of version {found}; this program needs version {VERSION}.")
    if found < VERSION:
        print("`fraud db upgrade` brings it up to date, as does whatever uses it next.")
    elif found.major > VERSION.major:
        print("A newer release has upgraded it: run that release or a later one.")
    elif found > VERSION:
        print("A newer release has added to it, which does not matter to this one.")
    return int(found < VERSION or found.major > VERSION.major)  # this program cannot use it as it is
