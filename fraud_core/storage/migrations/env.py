"""Alembic's environment: runs migrations on the connection of `schema.upgrade`, within its transaction and under its lock."""

from alembic import context

connection, version_table = (context.config.attributes[name] for name in ("connection", "version_table"))
context.configure(connection=connection, version_table=version_table)
context.run_migrations()
