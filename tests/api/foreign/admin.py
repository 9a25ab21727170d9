"""The project's people in its admin."""

from django.contrib import admin

from tests.api.foreign.models import Person

admin.site.register(Person)
