"""What the shop sells, sends and pays back."""

from django.conf import settings
from django.db import models


class Order(models.Model):
    organisation = models.ForeignKey("people.Organisation", on_delete=models.CASCADE)
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    number = models.PositiveIntegerField(unique=True)
    status = models.CharField(max_length=20, default="open")
    total = models.DecimalField(max_digits=9, decimal_places=2)

    class Meta:
        permissions = [("view_all_orders", "Can view the orders of colleagues")]

    def __str__(self) -> str:
        return f"order {self.number}"


class Refund(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="refunds")
    amount = models.DecimalField(max_digits=9, decimal_places=2)
    paid_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        permissions = [("approve_refund", "Can approve refunds")]

    def __str__(self) -> str:
        return f"refund of {self.amount} for {self.order}"


class Note(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="notes")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    text = models.TextField()

    def __str__(self) -> str:
        return self.text


class Inquiry(models.Model):
    """A question to the warehouse, which answers by a webhook."""

    thread = models.ForeignKey("durable_agents.Thread", on_delete=models.CASCADE, related_name="inquiries")
    call = models.CharField(max_length=255)
    sku = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.sku


class Ticket(models.Model):
    """What the helpdesk's lists show of a conversation."""

    thread = models.OneToOneField("durable_agents.Thread", on_delete=models.CASCADE, related_name="ticket")
    agent_status = models.CharField(max_length=30, blank=True)
    steps = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.thread_id)


class SupplierTool(models.Model):
    """A tool that a supplier's server has, with its JSON schema."""

    organisation = models.ForeignKey("people.Organisation", on_delete=models.CASCADE)
    name = models.CharField(max_length=64)
    description = models.TextField()
    input_schema = models.JSONField()
    reply = models.JSONField(default=dict)

    def __str__(self) -> str:
        return self.name
