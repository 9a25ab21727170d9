"""Plugin: parse the certificate authorities once, since httpx takes 40 ms to do so for each of the tests' clients."""

import functools
import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _certificates_once() -> None:
    """Give httpx's clients one context for each way to verify, unless a test names authorities of its own."""
    from httpx._transports import default

    made = default.create_ssl_context
    cached = functools.cache(made)

    def create_ssl_context(**options: object) -> object:
        return made(**options) if "SSL_CERT_FILE" in os.environ else cached(**options)

    default.create_ssl_context = create_ssl_context
