"""Settings of a project that has its own way in everything."""

from tests.settings import *  # noqa: F403 - the settings of the tests, changed
from tests.settings import DATABASES, INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [*INSTALLED_APPS, "tests.api.foreign"]
AUTH_USER_MODEL = "foreign.Person"
DEBUG = False
LANGUAGE_CODE = "de"
TIME_ZONE = "Asia/Kathmandu"

DATABASES["default"]["ATOMIC_REQUESTS"] = True
if not DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": f"test_{DATABASES['default']['NAME']}_foreign"}

MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    *MIDDLEWARE,
    "django.middleware.locale.LocaleMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_RENDERER_CLASSES": ["tests.api.foreign.rest.CamelRenderer"],
    "DEFAULT_PARSER_CLASSES": ["tests.api.foreign.rest.OnlyForms"],
    "DEFAULT_PAGINATION_CLASS": "tests.api.foreign.rest.Envelopes",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "tests.api.foreign.rest.Choosy",
    "DEFAULT_VERSIONING_CLASS": "tests.api.foreign.rest.Versions",
    "DEFAULT_SCHEMA_CLASS": "tests.api.foreign.rest.Schema",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "tests.api.foreign.rest.handler",
    "UNAUTHENTICATED_USER": None,
    "NON_FIELD_ERRORS_KEY": "errors",
    "URL_FORMAT_OVERRIDE": "accept",
    "DATETIME_FORMAT": "%d.%m.%y",
    "COERCE_DECIMAL_TO_STRING": False,
    "UNICODE_JSON": False,
    "COMPACT_JSON": False,
    "STRICT_JSON": False,
    "SEARCH_PARAM": "q",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Somebody else's API",
    "PREPROCESSING_HOOKS": ["tests.api.foreign.rest.refuse"],
    "POSTPROCESSING_HOOKS": ["tests.api.foreign.rest.refuse"],
    "CAMELIZE_NAMES": True,
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX_TRIM": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAdminUser"],
}
