"""Views that belong to no thread: agents, websocket tickets, and the OpenAPI schema."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.http import HttpResponseBase
from django.utils.cache import patch_vary_headers
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api import serializers
from durable_agents.api.base import AgentsView
from durable_agents.api.openapi.operation_decorator import Gives, Operation
from durable_agents.api.openapi.page import page_response, wants_page
from durable_agents.caller_credentials import Credential
from durable_agents.exceptions import PermissionDeniedError
from durable_agents.policies import may_connect, public_agents


class AgentListView(AgentsView):
    """The agents that the caller may talk to."""

    @Operation(operation_id="listAgents", action="view", answers={200: Gives(shape=serializers.AgentJSON, paged=True)})
    def get(self, request: Request) -> Response:
        """List the public agents and their tools, sorted by name. The list has only one page."""
        results = [serializers.agent_json(agent) for agent in public_agents(request)]
        return Response({"next": None, "previous": None, "results": results})


class TicketView(AgentsView):
    """A view that creates tickets. A ticket signs in one websocket."""

    @Operation(operation_id="createTicket", action="view", answers={200: Gives(shape=serializers.TicketJSON)})
    def post(self, request: Request) -> Response:
        """Create a ticket that signs in one websocket. Use tickets if callers sign in with a header, because
        browsers cannot send headers with a websocket. The websocket is closed when the credential of this request
        becomes invalid.
        """
        if not request.user.is_authenticated:
            raise NotAuthenticated()
        # A ticket has a foreign key to the user model, but a custom authentication class may return another kind of
        # user.
        if not isinstance(request.user, get_user_model()):
            raise PermissionDeniedError("Tickets are for users of this project; send your header with the websocket.")
        if not may_connect(request):
            raise PermissionDeniedError("There is nothing that a websocket could show you.")
        ticket = lifecycle.issue_ticket(request.user, Credential.of(request))
        data = {"ticket": ticket, "expires_in": lifecycle.TICKET_SECONDS}
        return Response(data, headers={"Cache-Control": "no-store"})


class SchemaView(AgentsView):
    """The OpenAPI schema of this API, for everybody."""

    authentication_classes = ()
    permission_classes = ()
    schema = None

    def get(self, request: Request) -> HttpResponseBase:
        """Return the OpenAPI schema, with the paths from this project's URLconf. Browsers get an HTML page."""
        from durable_agents.api.openapi.schema import openapi  # noqa: PLC0415 - an extra

        document = openapi(request)
        response = page_response(request, document) if wants_page(request) else Response(document)
        # Without this header, a cache could send the HTML page to a program or the JSON to a browser.
        patch_vary_headers(response, ["Accept"])
        return response
