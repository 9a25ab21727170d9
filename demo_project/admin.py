"""Admin of the bookings that the demo's agent has made."""

from typing import TYPE_CHECKING

from django.contrib import admin

from .models import Booking

if TYPE_CHECKING:
    BookingBase = admin.ModelAdmin[Booking]
else:
    BookingBase = admin.ModelAdmin


@admin.register(Booking)
class BookingAdmin(BookingBase):
    """The list of all bookings, newest first."""

    list_display = ("restaurant", "people", "time", "booked_for", "made_at")
