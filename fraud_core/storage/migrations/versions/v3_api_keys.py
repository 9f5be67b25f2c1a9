"""Version 3.0: API keys, which lay in a file of each machine before."""

import sqlalchemy as sa
from alembic import op

revision = "3.0"
down_revision = "2.0"


def upgrade() -> None:
    """Make the table; `fraud_core.access.api_keys.ApiKeys` takes the keys of a file over."""
    op.create_table(
        "api_keys",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.BigInteger),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        if_not_exists=True,  # it stays where an older backup is restored over a newer database
    )
