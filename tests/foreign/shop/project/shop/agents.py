"""The shop's agents and their tools."""

from decimal import Decimal
from typing import Literal

import httpx
from django.conf import settings
from people.models import Organisation

from durable_agents import Agent, Retry, Tool, ToolContext, ToolError, tool
from shop.models import Inquiry, Note, Order, Refund, SupplierTool, Ticket


def order_of(ctx: ToolContext, number: int) -> Order:
    """Return an order of the thread's organisation, if the sender may see it."""
    orders = Order.objects.filter(organisation=ctx.scope, number=number)
    if not ctx.sender.has_perm("shop.view_all_orders"):
        orders = orders.filter(customer=ctx.sender)
    order = orders.first()
    if order is None:
        raise ToolError(f"There is no order {number}.")
    return order


@tool(aliases=["search"])
def find_order(ctx: ToolContext, number: int) -> dict:
    """Find an order."""
    order = order_of(ctx, number)
    return {"number": order.number, "status": order.status, "total": order.total}


@tool(retry=Retry(max_attempts=3, initial_delay_seconds=0.1), timeout_seconds=20, after_crash="retry")
async def track_parcel(ctx: ToolContext, number: int) -> str:
    """Ask the carrier where the parcel of an order is."""
    headers = {"Idempotency-Key": ctx.idempotency_key}
    async with httpx.AsyncClient(headers=headers, timeout=5) as carrier:
        response = await carrier.get(f"{settings.CARRIER_URL}/parcels/{number}")
    return response.raise_for_status().text


@tool(atomic=True)
def add_note(ctx: ToolContext, number: int, text: str) -> str:
    """Add a note to an order."""
    Note.objects.create(order=order_of(ctx, number), author=ctx.sender, text=text)
    return "noted"


@tool(atomic=True, needs_approval=True, approved_by="shop.approve_refund", timeout_seconds=None)
def refund(ctx: ToolContext, number: int, amount: Decimal) -> str:
    """Pay a customer back."""
    Refund.objects.create(order=order_of(ctx, number), amount=amount)
    return f"refunded {amount}"


@tool(needs_approval=lambda ctx, args: args["percent"] > 10, approved_by="other")
def give_discount(percent: int) -> str:
    """Give a discount. A colleague approves more than 10 percent."""
    return f"{percent} percent off"


def is_colleague(user, call) -> bool:
    return str(getattr(user, "organisation_id", None)) == call.thread.scope


@tool(needs_approval=True, approved_by=is_colleague)
def close_account() -> str:
    """Close the organisation's account; any member may approve it."""
    return "closed"


@tool(kind="deferred", timeout_seconds=None)
def ask_the_warehouse(ctx: ToolContext, sku: str) -> None:
    """Ask how many are in stock; the answer takes some hours."""
    Inquiry.objects.create(thread_id=ctx.thread_id, call=ctx.tool_call_id, sku=sku)


@tool(kind="client", timeout_seconds=None)
def pick_a_date(label: str) -> str:
    """Let the user pick a date. Returns YYYY-MM-DD."""


@tool
def set_language(language: Literal["de", "en"]) -> str:
    """Change the language of the conversation."""
    return language


def tool_of(row: SupplierTool) -> Tool:
    async def call(ctx: ToolContext, **arguments):
        return {"supplier": row.name, "arguments": arguments, **row.reply}

    return Tool(row.name, call, schema=row.input_schema, description=row.description)


def configure(thread):
    organisation = Organisation.objects.get(pk=thread.scope)
    offered = [one for one in TOOLS if one is not refund or organisation.may_refund]
    suppliers = map(tool_of, SupplierTool.objects.filter(organisation=organisation))
    return {"tools": [*offered, *suppliers], "instructions": instructions_of(thread, organisation)}


def instructions_of(thread, organisation) -> str:
    plan = thread.context.get("plan", "basic")
    return f"You help {organisation.name}. Plan: {plan}. {organisation.instructions}"


def find_again(name, thread):
    row = SupplierTool.objects.filter(organisation=thread.scope, name=name).first()
    return row and tool_of(row)


async def title(thread):
    first = await thread.messages.filter(role="user").afirst()
    return first.text[:60]


def on_commit_step(*, thread_id, **facts):
    ticket, _ = Ticket.objects.get_or_create(thread_id=thread_id)
    ticket.steps += 1
    ticket.save()


def on_status_change(*, thread_id, status, **facts):
    Ticket.objects.update_or_create(thread_id=thread_id, defaults={"agent_status": status})


TOOLS = [
    find_order,
    track_parcel,
    add_note,
    refund,
    give_discount,
    close_account,
    ask_the_warehouse,
    pick_a_date,
    set_language,
]

support = Agent(
    "support",
    model=["openai/shop-large", "openai/shop-small"],
    tools=TOOLS,
    configure=configure,
    tool_resolver=find_again,
    retry=Retry(max_attempts=2, initial_delay_seconds=0.2),
    title=title,
    on_commit_step=on_commit_step,
    on_status_change=on_status_change,
    aliases=["helpdesk"],
    public=True,
)

back_office = Agent(
    "back-office",
    model="openai/shop-small",
    instructions="You write summaries.",
)
