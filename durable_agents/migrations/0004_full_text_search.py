from typing import Any

from django.db import migrations

# What each index is for is in durable_agents/reading/search.py, whose expressions these are.
INDEXES = {
    "da_thread_words": "durable_agents_thread USING gin (to_tsvector('simple', left(title, 50000)))",
    "da_message_words": (
        "durable_agents_message USING gin (to_tsvector('simple', left(text, 50000))) WHERE role = 'user'"
    ),
    "da_stream_words": "durable_agents_stream USING gin (to_tsvector('simple', left(text, 50000))) WHERE text <> ''",
}


def create(apps: Any, schema_editor: Any) -> None:
    """On PostgreSQL only: the other databases have no full text search that needs nothing else."""
    if schema_editor.connection.vendor == "postgresql":
        for name, index in INDEXES.items():
            schema_editor.execute(f"CREATE INDEX {name} ON {index}")


def drop(apps: Any, schema_editor: Any) -> None:
    """The way back."""
    if schema_editor.connection.vendor == "postgresql":
        for name in INDEXES:
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}")


class Migration(migrations.Migration):

    dependencies = [('durable_agents', '0003_attachments_and_tickets')]

    operations = [migrations.RunPython(create, drop)]
