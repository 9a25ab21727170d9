"""The code of docs/howto/tenancy.md, as it stands there: what is tested is what readers copy."""

import re
from types import ModuleType

from tests.architecture.sources import ROOT

PAGE = ROOT / "docs" / "howto" / "tenancy.md"


def policies_of_the_page() -> ModuleType:
    """A module with every class of the page."""
    module = ModuleType("documented_policies")
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        if "(OwnerPolicy)" in block:
            exec(compile(block, str(PAGE), "exec"), module.__dict__)
    return module


_module = policies_of_the_page()
OrganisationPolicy = _module.OrganisationPolicy
SessionPolicy = _module.SessionPolicy
SupportDeskPolicy = _module.SupportDeskPolicy
