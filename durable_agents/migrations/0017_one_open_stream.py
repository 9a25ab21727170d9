from typing import Any

from django.db import migrations

INDEX = "da_stream_one_open ON durable_agents_stream (thread_id) WHERE state IN ('pending', 'streaming')"


def create(apps: Any, schema_editor: Any) -> None:
    """Create the index again where migration 0013 has dropped it: on PostgreSQL, ``AlterField`` with ``db_index=False``
    drops every index of the column alone, also that of a conditional constraint.
    """
    # A build without a lock that was interrupted leaves an invalid index behind.
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX CONCURRENTLY IF EXISTS da_stream_one_open")
        schema_editor.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {INDEX}")
    else:
        schema_editor.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {INDEX}")


class Migration(migrations.Migration):
    atomic = False  # PostgreSQL builds an index without a lock only outside a transaction

    dependencies = [("durable_agents", "0016_keep_shared_threads")]

    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
