"""The Django app of the demo."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DemoConfig(AppConfig):
    name = "demo_project"
    verbose_name = _("Demo bookings")
