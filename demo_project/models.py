"""The table of bookings, which the demo's tool `book_table` writes after an approval."""

from django.conf import settings
from django.db import models


class Booking(models.Model):
    """A restaurant table that the tool `book_table` has booked after a person's approval."""

    restaurant = models.CharField(max_length=200)
    people = models.PositiveSmallIntegerField()
    time = models.CharField(max_length=40)
    booked_for = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE)
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]  # noqa: RUF012 - Django reads a list

    def __str__(self) -> str:
        return f"{self.restaurant}, {self.people} people, {self.time}"
