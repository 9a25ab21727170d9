"""Settings of a site behind a proxy that speaks TLS and says so."""

from tests.settings import *

ALLOWED_HOSTS = ["example.org", ".localhost", "127.0.0.1"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
USE_X_FORWARDED_HOST = True
USE_X_FORWARDED_PORT = True
