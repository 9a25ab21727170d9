/**
 * Builds the minified modules, their source maps and the types from the sources beside them.
 *
 *     node .ci/build.mjs            # writes them
 *     node .ci/build.mjs --check    # fails if one of them is not what its source builds, or is too large
 *
 * Run it after each change of a source; `tests/js/build.test.mjs` fails otherwise.
 */

import {build, transformSync} from "esbuild";
import {execFileSync} from "node:child_process";
import {copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from "node:fs";
import {join} from "node:path";
import {fileURLToPath} from "node:url";
import {gzipSync} from "node:zlib";

import {minify} from "terser";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const FOLDER = join(ROOT, "durable_agents/static/durable_agents");
const KB = 1024;

/**
 * Names of properties that never leave `durable-agents.js`: neither frames, nor the API, nor the browser know them.
 * Shortening them saves as much as a whole feature takes.
 */
const INTERNAL =
  /^(segments|drafts|ended|snapshotRev|held|setThread|acknowledge|failDraft|draft|dropHeld|gaps|addOlder|onOpen|onFrame|onConnection|isHidden|isOnline|listen|durable|opened|isPolling|ending|wake|enlist|detach|watch|beat|stable|deadline|entry|commit|view|loaded|notBefore)$/;

const ELEMENT_INTERNAL = /^(leaving|draw|resend|callTool|noticeText|spoken|typing|banner|olderButton|resumeButton|jumpButton|statusText|problemText|fileList|attachButton|stopButton|sendButton|welcomeBox|noticeBox|composerForm|messageList|threadRows|noteText|moreButton|focused|denies|follow|act|tell|log|field)$/;
const BOTH = new RegExp(`${INTERNAL.source}|${ELEMENT_INTERNAL.source}`);

/** What is built: from which source, with what inside, and how large it may be with gzip. */
export const MODULES = {
  "durable-agents": {limit: 10 * KB, internal: INTERNAL},
  react: {limit: 2 * KB, external: ["react", "django-durable-agents"]},
  element: {limit: 12 * KB, internal: ELEMENT_INTERNAL},
  "ai-sdk": {limit: 3 * KB},
  markdown: {limit: 4 * KB, internal: /^(isBare|resume|taken|isClosed|hasGap|isLoose|begins|restart|depth|fence|indent|marker|start|end|lines|flow|columns|rule|left|mark|take|parent|element|body|rule|list|code|text)$/},
  // Self-contained, for pages without an import map: the elements and the core, with Markdown and without.
  "durable-chat": {limit: 25 * KB, external: [], internal: BOTH},
  "durable-chat-plain": {limit: 21 * KB, external: [], source: "element", internal: BOTH},
};

/** Styles without the space that only people need. */
const minifiedTemplates = {
  name: "styles",
  setup(build) {
    build.onLoad({filter: /element\.js$/}, ({path}) => {
      const text = readFileSync(path, "utf8");
      const [before, styles, after] = text.split(/(?<=const STYLES = `)([^`]*)/);
      const {code} = transformSync(styles, {loader: "css", minify: true, target: "chrome123"});
      return {contents: before + code.trim() + after};
    });
  },
};

/** Returns the files by name, as the sources of now build them. */
export async function built() {
  const files = new Map();
  for (const [name, {external = ["django-durable-agents"], source = name, internal}] of Object.entries(MODULES)) {
    const result = await build({
      absWorkingDir: FOLDER,
      entryPoints: [`${source}.js`],
      outfile: `${name}.min.js`,
      bundle: true,
      external,
      alias: Object.fromEntries(["", "/markdown"].map((name) => [`django-durable-agents${name}`, join(FOLDER, `${name.slice(1) || "durable-agents"}.js`)]).filter(([name]) => !external.includes(name))),
      plugins: [minifiedTemplates],
      format: "esm",
      target: "es2022",
      minify: true,
      mangleProps: internal,
      sourcemap: true,
      sourcesContent: false,
      write: false,
    });
    const [map, code] = result.outputFiles.map((file) => file.text);
    for (const [path, text] of Object.entries(await shortened(`${name}.min.js`, code, map))) files.set(path, text);
  }
  for (const [name, text] of types()) files.set(name, text);
  return files;
}

/**
 * Minifies what esbuild has written once more: terser finds two to five per cent that esbuild leaves. `unsafe_comps` stays
 * off: it turns `a >= 0 ? b : c` around, which is wrong if `a` is not a number.
 */
async function shortened(name, code, map) {
  const result = await minify(code, {
    module: true,
    ecma: 2020,
    compress: {passes: 3, inline: 1, lhs_constants: false, unsafe_arrows: true},
    sourceMap: {content: map, url: `${name}.map`},
  });
  return {[name]: `${result.code}\n`, [`${name}.map`]: `${result.map}\n`};
}

/** The declarations that `tsc` makes of the JSDoc, in a folder without those of an earlier build. */
function* types() {
  const folder = mkdtempSync(join(ROOT, "node_modules/.types-"));
  const names = Object.entries(MODULES).filter(([, {source}]) => !source).map(([name]) => name);
  const flags = ["--strict", "--declaration", "--emitDeclarationOnly", "--allowJs", "--skipLibCheck", "--target", "es2024", "--module", "esnext", "--moduleResolution", "bundler"];
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  try {
    for (const name of ["package.json", ...names.map((name) => `${name}.js`)]) copyFileSync(join(FOLDER, name), join(folder, name));
    execFileSync(process.execPath, [tsc, ...flags, "--rootDir", folder, "--outDir", join(folder, "out"), ...names.map((name) => join(folder, `${name}.js`))], {cwd: folder, stdio: "pipe"});
    for (const name of names) yield [`${name}.d.ts`, readFileSync(join(folder, "out", `${name}.d.ts`), "utf8")];
  } finally {
    rmSync(folder, {recursive: true});
  }
}

/** Bytes with gzip. */
export const sizeOf = (text) => gzipSync(text, {level: 9}).length;

/** What is wrong with the files that are there, one line each. */
export async function problems() {
  const found = [];
  for (const [name, text] of await built()) {
    if (read(name) !== text) found.push(`${name} is not what its source builds: run node .ci/build.mjs`);
  }
  for (const [name, {limit}] of Object.entries(MODULES)) {
    const size = sizeOf(read(`${name}.min.js`));
    console.log(`${name}.min.js: ${(size / KB).toFixed(2)} of ${limit / KB} kB with gzip`);
    if (size > limit) found.push(`${name}.min.js has ${size} bytes with gzip, more than ${limit}`);
  }
  return found;
}

function read(name) {
  try {
    return readFileSync(join(FOLDER, name), "utf8");
  } catch {
    return "";
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!process.argv.includes("--check")) for (const [name, text] of await built()) writeFileSync(join(FOLDER, name), text);
  const found = await problems();
  for (const problem of found) console.error(problem);
  process.exitCode = found.length ? 1 : 0;
}
