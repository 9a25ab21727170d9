from django.db import models

from durable_agents.models import Thread


class Ticket(models.Model):
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="tickets")
    subject = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.subject
