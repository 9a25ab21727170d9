"""What a channel layer must be, so that sockets live."""

import pytest
from channels.layers import get_channel_layer
from django.conf import settings

from tests.websocket.sockets import MEMORY, forget_layer


@pytest.mark.skipif(settings.CHANNEL_LAYERS == MEMORY, reason="no Redis is named by TEST_REDIS_URL")
async def test_waiting_for_a_message_does_not_time_out():
    """Else every socket that has nothing to say for some seconds is torn down."""
    layer = get_channel_layer()
    reading = layer.connection(0).connection_pool.make_connection().socket_timeout
    assert reading is None or reading > layer.brpop_timeout
    await forget_layer()
