"""Settings of a site whose callers also come with a JWT, in a header or a cookie, or with a key of the project's."""

from typing import Any

from django.core import signing

from tests.settings import *
from tests.settings import REST_FRAMEWORK as GIVEN

REST_FRAMEWORK = {
    **GIVEN,
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "tests.websocket.site.BearerAuthentication",
        "tests.websocket.site.CookieAuthentication",
        "tests.websocket.site.KeyAuthentication",
        *GIVEN["DEFAULT_AUTHENTICATION_CLASSES"],
    ],
}


def bearer(user: Any, seconds: float) -> str:
    """Return a token that names the user, and when it ends; nothing of it is stored."""
    return signing.dumps({"user": user.pk, "seconds": seconds})


def _user_of(token: str) -> Any:
    from django.contrib.auth import get_user_model
    from rest_framework.exceptions import AuthenticationFailed

    try:
        claims = signing.loads(token)
        signing.loads(token, max_age=claims["seconds"])
    except signing.BadSignature as error:
        raise AuthenticationFailed from error
    return get_user_model().objects.filter(pk=claims["user"]).first()


class BearerAuthentication:
    """Signs in by `Authorization: Bearer ...`."""

    def authenticate(self, request: Any) -> Any:
        """Return the user whom the token names."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return (_user_of(token), None) if kind == "Bearer" else None

    def authenticate_header(self, request: Any) -> str:
        """Return how to sign in."""
        return "Bearer"


class CookieAuthentication(BearerAuthentication):
    """Signs in by the cookie `jwt`."""

    def authenticate(self, request: Any) -> Any:
        """Return the user whom the token names."""
        token = request.COOKIES.get("jwt")
        return (_user_of(token), None) if token else None


class KeyAuthentication(BearerAuthentication):
    """Signs in by `X-Api-Key`, which is kept as the user's first name."""

    def authenticate(self, request: Any) -> Any:
        """Return the user who has the key."""
        from django.contrib.auth import get_user_model

        key = request.headers.get("X-Api-Key")
        user = get_user_model().objects.filter(first_name=key).first() if key else None
        return (user, None) if user else None
