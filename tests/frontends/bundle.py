"""A Vite project with the packed npm package: a page's script for each chat that is bundled."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.frontends.snippets import (
    ASSISTANT_UI,
    CHAT_MAIN,
    COMPLETE_MAIN,
    COMPLETE_PAGE,
    DESK,
    DESK_BUILD,
    HOOK,
    HOOK_MAIN,
    PACK,
    SVELTE,
    USE_CHAT,
    VUE,
)
from tests.packaging.projects import ROOT, Project

MODULES = ROOT / "node_modules"
TARGET = 'const target = document.getElementById("chat");'
"""The element of the page, which names the thread."""
VUE_MAIN = f"""
import {{ createApp }} from "vue";
import Chat from "./Chat.vue";
{TARGET}
createApp(Chat, {{ threadId: target.dataset.thread }}).mount(target);
"""
SVELTE_MAIN = f"""
import {{ mount }} from "svelte";
import Chat from "./Chat.svelte";
{TARGET}
mount(Chat, {{ target, props: {{ threadId: target.dataset.thread }} }});
"""
FILES = {
    "hook": {"chat.jsx": HOOK, "main.jsx": HOOK_MAIN},
    "use-chat": {"chat.jsx": USE_CHAT, "main.jsx": CHAT_MAIN},
    "assistant-ui": {"chat.jsx": ASSISTANT_UI, "main.jsx": CHAT_MAIN},
    "complete": {"chat.jsx": COMPLETE_PAGE, "main.jsx": COMPLETE_MAIN},
    "vue": {"Chat.vue": VUE, "main.js": VUE_MAIN},
    "svelte": {"Chat.svelte": SVELTE, "main.js": SVELTE_MAIN},
}
CONFIG = """
import { svelte } from "@sveltejs/vite-plugin-svelte";
import vue from "@vitejs/plugin-vue";

export default {
  base: "/static/built/",
  plugins: [vue(), svelte()],
  build: { outDir: OUT, emptyOutDir: true, rollupOptions: { input: INPUT, output: { entryFileNames: "[name].js" } } },
};
"""


def missing() -> str:
    """Return what the tests need and this machine lacks, with the command that gets it; empty where all is there."""
    return "" if (MODULES / "vite").is_dir() else "the npm packages are not installed: npm ci"


def packed(folder: Path) -> Path:
    """Pack the package with the command of the how-to, and return the tarball."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run("bash", "-euc", PACK, cwd=folder, PATH=path)
    [tarball] = folder.glob("django-durable-agents-*.tgz")
    return tarball


def bundle(folder: Path, out: Path) -> str:
    """Install the package into a Vite project in this folder, build it into `out`, and return what Vite says."""
    (folder / "node_modules").symlink_to(MODULES)
    app = folder / "app"
    tarball = packed(folder)
    for name, files in FILES.items():
        (app / name).mkdir(parents=True)
        for file, text in files.items():
            (app / name / file).write_text(text, encoding="utf-8")
    entries = {
        name: f"{name}/{next(file for file in files if file.startswith('main'))}" for name, files in FILES.items()
    }
    config = CONFIG.replace("OUT", json.dumps(str(out))).replace("INPUT", json.dumps(entries))
    (app / "vite.config.js").write_text(config, encoding="utf-8")
    dependencies = {"django-durable-agents": f"file:{tarball}"}
    (app / "package.json").write_text(json.dumps({"type": "module", "private": True, "dependencies": dependencies}))
    npm("install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", cwd=app)
    return run("node", str(MODULES / "vite" / "bin" / "vite.js"), "build", cwd=app)


def add_desk(project: Project, app: Path) -> str:
    """Add the how-to's app to the project, build its page with the packages of `app`, and return what Vite says."""
    for name, text in DESK.items():
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        project.paste(name, text)
    (project.folder / "frontend" / "node_modules").symlink_to(app / "node_modules")
    project.paste("mysite/settings.py", '\nINSTALLED_APPS += ["desk"]\n')
    path = f"{MODULES / '.bin'}:{os.environ['PATH']}"
    return run("bash", "-euc", DESK_BUILD, cwd=project.folder / "frontend", PATH=path)


def npm(*arguments: str, cwd: Path) -> str:
    """Run npm; return what it prints."""
    return run("npm", *arguments, cwd=cwd)


def run(*command: str, cwd: Path, **variables: str) -> str:
    """Run a command; return what it prints, or fail with all that it says."""
    env = os.environ | {"NO_COLOR": "1"} | variables
    ended = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
