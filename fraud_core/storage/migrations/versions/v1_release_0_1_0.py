"""Version 1.0: the tables of release 0.1.0."""

import sqlalchemy as sa
from alembic import op

revision = "1.0"
down_revision = None

# The database itself refuses to change or remove a label, whoever asks.
REFUSALS = {
    "sqlite": [
        f"CREATE TRIGGER labels_{verb.lower()} BEFORE {verb} ON labels "
        "BEGIN SELECT RAISE(ABORT, 'labels are only ever added'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION labels_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'labels are only ever added'; END $$",
        "CREATE TRIGGER labels_change BEFORE UPDATE OR DELETE OR TRUNCATE ON labels "
        "FOR EACH STATEMENT EXECUTE FUNCTION labels_refuse()",
    ],
}


def upgrade() -> None:
    """Make those that are missing: before there were versions, each was made at its first use, and stays as it is."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    for name, make in {"decisions": _decisions, "labels": _labels, "users": _users, "claims": _claims}.items():
        if name not in there:
            make()


def _number(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True)


def _decisions() -> None:
    op.create_table(
        "decisions",
        _number("number"),
        sa.Column("transaction_id", sa.Text, nullable=False, unique=True),
        sa.Column("scored_at", sa.BigInteger, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("amount_cents", sa.BigInteger, nullable=False),
        sa.Column("card", sa.Text),
        sa.Column("merchant", sa.Text),
        sa.Column("category", sa.Text),
        sa.Column("transaction", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("probability", sa.Float(53), nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("degraded", sa.Boolean, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("features_sha256", sa.Text, nullable=False),
        sa.Column("features", sa.Text),
        sa.Column("sequence", sa.BigInteger),
    )
    op.create_index("decisions_scored_at", "decisions", ["scored_at"])
    op.create_index("decisions_card", "decisions", ["card", "timestamp"])


def _labels() -> None:
    op.create_table(
        "labels",
        _number("sequence"),
        sa.Column("transaction_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, sa.CheckConstraint("outcome IN ('fraud', 'legitimate', 'unsure')"), nullable=False),
        sa.Column("source", sa.Text, sa.CheckConstraint("source IN ('chargeback', 'analyst', 'source')"), nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("event_time", sa.BigInteger, nullable=False),
        sa.Column("known_at", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("labels_transaction", "labels", ["transaction_id"])
    for statement in REFUSALS[op.get_bind().dialect.name]:
        op.execute(statement)


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.BigInteger),
    )
    op.create_table(
        "user_cards", sa.Column("name", sa.String(40), primary_key=True), sa.Column("card", sa.String(32), primary_key=True)
    )


def _claims() -> None:
    op.create_table(
        "claims",
        sa.Column("transaction_id", sa.Text, primary_key=True),
        sa.Column("analyst", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
