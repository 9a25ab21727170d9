/** The files that are shipped: built from the sources beside them, and small. */

import assert from "node:assert/strict";
import {execFileSync} from "node:child_process";
import {readFileSync} from "node:fs";
import {test} from "node:test";

import {problems} from "../../.ci/build.mjs";

const FOLDER = new URL("../../durable_agents/static/durable_agents/", import.meta.url);
const packageOf = (folder) => JSON.parse(readFileSync(new URL("package.json", folder), "utf8"));

test("each minified module and each declaration is built from its source, within its size", async () => {
  assert.deepEqual(await problems(), []);
});

test("the package has the version of the distribution and everything that it exports", () => {
  const {version, exports, files} = packageOf(FOLDER);
  const pyproject = readFileSync(new URL("../../pyproject.toml", import.meta.url), "utf8");
  assert.equal(version, pyproject.match(/^version = "(.+)"$/m)[1]);
  const [{files: packed}] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {cwd: FOLDER, encoding: "utf8"}));
  const paths = packed.map(({path}) => `./${path}`);
  for (const target of Object.values(exports).flatMap((entry) => (typeof entry === "string" ? [entry] : Object.values(entry)))) {
    assert.ok(paths.includes(target), `${target} is not packed`);
  }
  assert.ok(files.length > 0 && !paths.some((path) => path.endsWith(".css")));
});
