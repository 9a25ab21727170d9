/**
 * Bundles React for the demo's page without a build step: npm has it only as CommonJS, which no browser imports.
 *
 *     node .ci/vendor-react.mjs
 */

import {build} from "esbuild";
import {fileURLToPath} from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const HOOKS = "createElement, Fragment, StrictMode, useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore";

await build({
  stdin: {contents: `export {${HOOKS}} from "react"; export {createRoot} from "react-dom/client";`, resolveDir: ROOT},
  outfile: `${ROOT}demo_project/static/demo/vendor-react.js`,
  bundle: true,
  format: "esm",
  minify: true,
  define: {"process.env.NODE_ENV": '"production"'},
  banner: {js: "/* React and React DOM, MIT licence, Copyright (c) Meta Platforms, Inc. and affiliates. Built by .ci/vendor-react.mjs. */"},
});
