"""What a benchmark with real workers needs before Django's models can be imported: a database of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def run(main: Callable[[], None]) -> None:
    """Call `main` with Django set up on `TEST_DATABASE_URL`, or on a fresh SQLite file where none is named."""
    folder = Path(tempfile.mkdtemp(prefix="durable-agents-benchmark-"))
    os.environ.setdefault("TEST_DATABASE_URL", f"sqlite:///{folder / 'benchmark.sqlite3'}")
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["PYTHONPATH"], os.environ["PYTHONUNBUFFERED"] = str(ROOT), "1"
    try:
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, check=True)
        import django

        django.setup()
        main()
    finally:
        shutil.rmtree(folder)
