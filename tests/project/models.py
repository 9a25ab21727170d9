"""Business rows of the tests."""

from django.db import models


class Booking(models.Model):
    """Something that must happen exactly once."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name
