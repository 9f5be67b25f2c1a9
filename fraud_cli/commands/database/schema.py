"""`fraud db`: the schema of the SQL database, told and brought up to date."""

from fraud_core.settings import Settings
from fraud_core.storage.database import described, open_database
from fraud_core.storage.schema import VERSION, upgrade, version_of


def print_status(settings: Settings) -> int:
    """Print which version the schema has; 1 where this program cannot use it as it is."""
    engine = open_database(settings)
    found = version_of(engine)
    print(f"{described(engine)} has a schema of version {found}; this program needs version {VERSION}.")
    if found < VERSION:
        print("`fraud db upgrade` brings it up to date, as does whatever uses it next.")
    elif found.major > VERSION.major:
        print("A newer release has upgraded it: run that release or a later one.")
    elif found > VERSION:
        print("A newer release has added to it, which does not matter to this one.")
    return int(found < VERSION or found.major > VERSION.major)


def upgrade_schema(settings: Settings) -> int:
    """Bring the schema up to date."""
    engine = open_database(settings)
    before = upgrade(engine)
    happened = "is up to date" if before >= VERSION else f"was upgraded from version {before}"
    print(f"{described(engine)} {happened}: its schema is of version {max(before, VERSION)}.")
    return 0
