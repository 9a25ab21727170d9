"""People and the organisations whose members they are."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models


class Organisation(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    may_refund = models.BooleanField(default=True)
    instructions = models.TextField(blank=True)

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organisation = models.ForeignKey(Organisation, null=True, blank=True, on_delete=models.CASCADE)
