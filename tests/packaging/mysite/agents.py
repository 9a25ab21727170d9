import os

from durable_agents import Agent, ToolContext, tool


@tool(atomic=True)
def open_ticket(ctx: ToolContext, subject: str) -> int:
    """Open a ticket."""
    from mysite.models import Ticket

    return Ticket.objects.create(thread_id=ctx.thread_id, subject=subject).pk


@tool(kind="deferred", timeout_seconds=3600)
def report(ctx: ToolContext, month: str) -> None:
    """Write a report about the tickets of a month."""
    from mysite.tasks import write_report

    write_report.delay(str(ctx.thread_id), ctx.tool_call_id, month)


Agent(
    "support",
    model="openai/scripted",
    model_settings={"api_base": os.environ.get("MODEL_URL", "http://127.0.0.1:9/v1"), "api_key": "none"},
    tools=[open_ticket, report],
    public=True,
)
