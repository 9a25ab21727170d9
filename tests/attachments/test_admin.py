"""The admin says what files there are, to whoever may see that, and not what is in them."""

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from durable_agents import create_thread
from durable_agents.models import Attachment
from tests.api.calls import Api, person
from tests.attachments.samples import PNG, embedded

pytestmark = pytest.mark.django_db


@pytest.fixture
def reader():
    """Return the client of somebody who may view everything."""
    staff = person("staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(staff)
    return client


def test_a_file_is_shown_by_name_type_and_size(reader, agent, me):
    """In the list, on its own page, and in the conversation; unsent ones too."""
    thread = create_thread(agent, owner=me, title="Pictures", parts=[embedded(filename="<b>dot</b>.png")])
    Api(me).upload(PNG, "unsent.png")
    sent = Attachment.objects.get(thread=thread)
    listed = reader.get(reverse("admin:durable_agents_attachment_changelist")).content.decode()
    assert "unsent.png" in listed
    assert "Pictures" in listed
    assert "70\xa0bytes" in listed
    assert "<b>dot" not in listed
    page = reverse("admin:durable_agents_attachment_change", args=[sent.pk])
    shown = reader.get(page).content.decode()
    assert "image/png" in shown
    told = reader.get(reverse("admin:durable_agents_thread_change", args=[thread.pk])).content.decode()
    assert f'<a href="{page}">b&gt;.png · image/png</a>' in told
    for text in (listed, shown, told):
        assert sent.place not in text


def test_a_list_costs_the_same_with_many_files(reader, agent, me, django_assert_max_num_queries):
    """Threads are read along."""
    place = reverse("admin:durable_agents_attachment_changelist")
    create_thread(agent, owner=me, parts=[embedded()])
    with django_assert_max_num_queries(20) as few:
        reader.get(place)
    for _ in range(3):
        create_thread(agent, owner=me, parts=[embedded()] * 3)
    with django_assert_max_num_queries(len(few)):
        reader.get(place)
