"""The table of bookings, which the demo's tool `book_table` writes after an approval."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class Booking(models.Model):
    """A restaurant table that the tool `book_table` has booked after a person's approval."""

    restaurant = models.CharField(_("restaurant"), max_length=200)
    people = models.PositiveSmallIntegerField(_("people"))
    time = models.CharField(_("time"), max_length=40)
    booked_for = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, verbose_name=_("booked for")
    )
    made_at = models.DateTimeField(_("made at"), auto_now_add=True)

    class Meta:
        verbose_name = _("booking")
        verbose_name_plural = _("bookings")
        ordering = ["-id"]  # noqa: RUF012 - Django reads a list

    def __str__(self) -> str:
        text = gettext("{restaurant}, {people} people, {time}")
        return text.format(restaurant=self.restaurant, people=self.people, time=self.time)
