"""Version 2.0: an id may have a second decision; the backlog of reviews, kept by triggers; heads of signed documents."""

import sqlalchemy as sa
from alembic import op

revision = "2.0"
down_revision = "1.0"

# What `fraud_core.labels.resolve.resolve` says of a payment.
STANDING = """(
    SELECT outcome FROM labels WHERE labels.transaction_id = {payment}.transaction_id
    ORDER BY CASE WHEN source = 'chargeback' THEN 3 WHEN source = 'analyst' AND role = 'lead' THEN 2
        WHEN source = 'analyst' THEN 1 ELSE 0 END DESC, known_at DESC, sequence DESC
    LIMIT 1)"""
SENT_TO_REVIEW = f"""INSERT INTO reviews (number, transaction_id, scored_at, outcome)
    SELECT {{payment}}.number, {{payment}}.transaction_id, {{payment}}.scored_at, {STANDING}"""
JUDGED = f"UPDATE reviews SET outcome = {STANDING} WHERE reviews.transaction_id = {{payment}}.transaction_id"  # noqa: S608 - ours
IS_KEPT = "WHERE {payment}.decision = 'review' AND NOT {payment}.repeated"
TRIGGERS = (  # name, event, table, what is done then
    ("reviews_decided", "INSERT", "decisions", f"{SENT_TO_REVIEW} {IS_KEPT}".format(payment="NEW")),
    ("reviews_judged", "INSERT", "labels", JUDGED.format(payment="NEW")),
    ("reviews_expired", "DELETE", "decisions", "DELETE FROM reviews WHERE reviews.number = OLD.number"),
)


def upgrade() -> None:
    """Make what is missing: before there were versions, each part was made at its first use."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":  # nobody decides or judges meanwhile; in the order in which the triggers lock
        op.execute("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE")
        op.execute("LOCK TABLE labels IN ACCESS EXCLUSIVE MODE")
    if "repeated" not in {column["name"] for column in sa.inspect(connection).get_columns("decisions")}:
        _let_ids_repeat(connection.dialect.name)
    first = sa.text("repeated IS false" if connection.dialect.name == "postgresql" else "repeated IS 0")
    _index("decisions_id", "decisions", ["transaction_id"], first, unique=True)
    _index("labels_analyst", "labels", ["known_at", "transaction_id", "source"], sa.text("source = 'analyst'"))
    op.create_table(
        "heads",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "reviews",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("transaction_id", sa.Text, nullable=False),
        sa.Column("scored_at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text),
        if_not_exists=True,
    )
    _index("reviews_outcome", "reviews", ["outcome", "scored_at"])
    _index("reviews_transaction", "reviews", ["transaction_id", "scored_at"])
    for name, event, table, action in TRIGGERS:
        _trigger(connection.dialect.name, name, f"AFTER {event} ON {table} FOR EACH ROW", table, action)
    op.execute("DELETE FROM reviews")
    op.execute(f"{SENT_TO_REVIEW} FROM decisions {IS_KEPT}".format(payment="decisions"))


def _let_ids_repeat(dialect: str) -> None:
    """Give decisions the column `repeated`; that ids are unique is said of the first ones from now on."""
    op.execute("DROP INDEX IF EXISTS decisions_review")
    repeated: sa.Column[bool] = sa.Column("repeated", sa.Boolean, nullable=False, server_default=sa.false())
    if dialect == "postgresql":
        op.add_column("decisions", repeated)
        op.execute("ALTER TABLE decisions DROP CONSTRAINT IF EXISTS decisions_transaction_id_key")
        return
    unnamed = {"uq": "%(column_0_name)s_key"}
    with op.batch_alter_table("decisions", naming_convention=unnamed, recreate="always") as decisions:
        decisions.drop_constraint("transaction_id_key", type_="unique")
        decisions.add_column(repeated)


def _index(name: str, table: str, columns: list[str], where: sa.TextClause | None = None, *, unique: bool = False) -> None:
    op.create_index(name, table, columns, unique=unique, if_not_exists=True, sqlite_where=where, postgresql_where=where)


def _trigger(dialect: str, name: str, event: str, table: str, action: str) -> None:
    """Make a trigger, in place of one of its name."""
    if dialect == "sqlite":
        op.execute(f"DROP TRIGGER IF EXISTS {name}")
        op.execute(f"CREATE TRIGGER {name} {event} BEGIN {action}; END")
        return
    body = f"$$ BEGIN {action}; RETURN NULL; END $$"
    op.execute(f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS {body}")
    op.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}")
    op.execute(f"CREATE TRIGGER {name} {event} EXECUTE FUNCTION {name}()")
