"""Settings of processes whose channel layer has faults: `TEST_SHAKEN_LAYER` has the options of `Shaken` as JSON."""

import json
import os

from tests.settings import *
from tests.settings import CHANNEL_LAYERS

SECRET_KEY = os.environ["SECRET_KEY"]  # the demo's settings may have been imported before it was set
if "TEST_SHAKEN_LAYER" in os.environ:
    _layer = CHANNEL_LAYERS["default"]
    _name = _layer["BACKEND"].rpartition(".")[2]
    _config = _layer["CONFIG"] | json.loads(os.environ["TEST_SHAKEN_LAYER"])
    CHANNEL_LAYERS = {"default": {"BACKEND": f"tests.shaken_delivery.layer.Shaken{_name}", "CONFIG": _config}}
