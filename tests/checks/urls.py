"""URLs of a project that has not mounted the API."""

from typing import Any

urlpatterns: list[Any] = []
