"""Admin for the bookings, where a newcomer can see what was approved."""

from typing import TYPE_CHECKING

from django.contrib import admin

from .models import Booking

if TYPE_CHECKING:
    BookingBase = admin.ModelAdmin[Booking]
else:
    BookingBase = admin.ModelAdmin


@admin.register(Booking)
class BookingAdmin(BookingBase):
    """All bookings, newest first."""

    list_display = ("restaurant", "people", "time", "booked_for", "made_at")
