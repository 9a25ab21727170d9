from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path
from shop import views

urlpatterns = [
    path("", views.chat),
    path("login/", LoginView.as_view(template_name="shop/login.html"), name="login"),
    path("waiting/", views.waiting),
    path("threads/<uuid:thread_id>/", views.thread, name="thread"),
    path("webhooks/warehouse/", views.stock_counted),
    path("admin/", admin.site.urls),
    path("agents/", include("durable_agents.urls")),
]
