"""The package never runs or unpickles data: a row or a message is read as JSON, whoever wrote it."""

import ast
from collections.abc import Iterator

from tests.architecture.sources import modules

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "yaml.load", "mark_safe", "os.system"}


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the top-level modules that `node` imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0]


def test_no_module_imports_a_serialiser_that_runs_code():
    """Pickle and its kin stay in django-q2, which signs what it pickles."""
    found = [
        (str(path), name)
        for path, tree in modules("durable_agents")
        for node in ast.walk(tree)
        for name in imported(node)
        if name in FORBIDDEN_MODULES
    ]
    assert found == []


def test_no_module_runs_data_as_code():
    """Neither Python, nor YAML objects, nor HTML that is declared safe."""
    found = [
        f"{path}:{node.lineno} {ast.unparse(node.func)}"
        for path, tree in modules("durable_agents")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS
    ]
    assert found == []
