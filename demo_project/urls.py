"""URLs of the demo: the chat, examples, the sign-in, the admin and the API."""

from django.contrib import admin
from django.urls import include, path
from rest_framework.authtoken.views import obtain_auth_token

from . import views

urlpatterns = [
    path("", views.chat, name="chat"),
    path("examples/", views.examples, name="examples"),
    path("examples/react/", views.react, name="react"),
    path("accounts/", include("django.contrib.auth.urls")),
    path("admin/", admin.site.urls),
    path("agents/", include("durable_agents.urls")),
    path("api-token-auth/", obtain_auth_token),
]
