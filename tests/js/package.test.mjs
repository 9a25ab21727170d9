/** The npm package as it would be published, and what `custom-elements.json` says about the elements. */

import assert from "node:assert/strict";
import {execFileSync} from "node:child_process";
import {mkdtempSync, readFileSync, rmSync} from "node:fs";
import {tmpdir} from "node:os";
import {join} from "node:path";
import {after, before, test} from "node:test";
import {fileURLToPath} from "node:url";

import ts from "typescript";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FOLDER = join(ROOT, "durable_agents/static/durable_agents");
const SHARED = "DurableElement";
const CALLBACKS = ["connectedCallback", "disconnectedCallback", "attributeChangedCallback", "observedAttributes"];

const read = (name) => readFileSync(join(FOLDER, name), "utf8");
const run = (tool, ...options) => execFileSync(process.execPath, [join(ROOT, "node_modules", tool), ...options], {encoding: "utf8", stdio: "pipe"});
const names = (items = []) => items.map(({name}) => name).sort();
const unique = (items) => [...new Set(items)].sort();

let folder, tarball;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "package-"));
  const [{filename}] = JSON.parse(execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {cwd: FOLDER, encoding: "utf8"}));
  tarball = join(folder, filename);
});
after(() => rmSync(folder, {recursive: true}));

test("publint finds nothing in the package", () => {
  assert.match(run("publint/src/cli.js", "run", tarball, "--strict"), /All good!/);
});

test("every way to import the package finds its types, and require finds modules", () => {
  const {analysis, problems} = JSON.parse(run("@arethetypeswrong/cli/dist/index.js", tarball, "--format", "json", "--ignore-rules", "cjs-resolves-to-esm"));
  assert.deepEqual(Object.keys(analysis.entrypoints).sort(), Object.keys(JSON.parse(read("package.json")).exports).sort());
  assert.deepEqual(Object.keys(problems ?? {}).filter((problem) => problem !== "CJSResolvesToESM"), []);
});

/** What element.js has, by class; `others` is what its functions and the views of messages have. */
function found() {
  const source = ts.createSourceFile("element.js", read("element.js"), ts.ScriptTarget.Latest, true);
  const classes = {};
  const of = (name) => (classes[name] ??= {attributes: [], events: [], slots: [], parts: [], members: {}});
  const texts = (node) => (ts.isStringLiteral(node) ? [node.text] : node.getChildren().flatMap(texts));
  const visit = (node, owner) => {
    if (ts.isClassDeclaration(node) && node.parent === source && /^Durable/.test(node.name.text)) {
      owner = of(node.name.text);
      for (const member of node.members) if (member.name && !ts.isPrivateIdentifier(member.name)) owner.members[member.name.text] = member;
    }
    if (ts.isCallExpression(node)) {
      const {expression, arguments: [first, second]} = node;
      const called = expression.name?.text ?? expression.text;
      const receiver = expression.expression?.getText();
      if (/^(this|chat)$/.test(receiver) && /^(get|has|remove)Attribute$/.test(called) && ts.isStringLiteral(first)) owner.attributes.push(first.text);
      if (called === "get" && !receiver && ts.isStringLiteral(first)) owner.attributes.push(first.text);
      if (called === "map" && second === undefined && first.getText() === "get") owner.attributes.push(...texts(expression.expression));
      if (called === "tell") owner.events.push(...texts(first));
      if (called === "h" && first.text === "slot") owner.slots.push(...texts(second));
    }
    if (ts.isPropertyAssignment(node) && node.name.getText() === "part" && ts.isStringLiteral(node.initializer)) owner.parts.push(node.initializer.text);
    node.forEachChild((child) => visit(child, owner));
  };
  visit(source, of("others"));
  return classes;
}

const {modules: [described]} = JSON.parse(read("custom-elements.json"));
const source = found();
const variables = unique(read("element.js").match(/--da-[a-z-]+/g));
const variablesOf = {DurableChat: variables, DurableThreadList: variables};

for (const element of described.declarations) {
  const own = source[element.name];
  const shared = source[SHARED];
  const others = element.name === "DurableChat" ? source.others : {attributes: [], events: [], slots: [], parts: []};
  const all = (kind) => unique([...own[kind], ...shared[kind], ...others[kind]]);

  test(`custom-elements.json has what ${element.tagName} reads, dispatches and shows`, () => {
    assert.deepEqual(names(element.attributes), all("attributes"));
    assert.deepEqual(names(element.events), all("events"));
    assert.deepEqual(names(element.slots), all("slots"));
    assert.deepEqual(names(element.cssParts), all("parts"));
    assert.deepEqual(names(element.cssProperties), variablesOf[element.name]);
  });

  test(`custom-elements.json has each member of ${element.tagName}, with its parameters`, () => {
    const members = {...shared.members, ...own.members};
    assert.deepEqual(names(element.members), Object.keys(members).filter((name) => !CALLBACKS.includes(name)).sort());
    for (const {name, kind, parameters, privacy} of element.members) {
      const node = members[name];
      assert.equal(kind, ts.isMethodDeclaration(node) ? "method" : "field", name);
      if (kind === "method" && privacy !== "private") {
        assert.deepEqual((parameters ?? []).map((parameter) => parameter.name), node.parameters.map((parameter) => parameter.name.getText()), name);
      }
    }
  });
}

test("custom-elements.json has the elements that the module defines and its exports", () => {
  const defined = [...read("element.js").matchAll(/\["(durable-[a-z-]+)", (\w+)\]/g)].map(([, tag, name]) => `${tag} ${name}`);
  assert.deepEqual(described.declarations.map(({tagName, name}) => `${tagName} ${name}`), defined);
  const exported = described.exports.map(({kind, name, declaration}) => `${kind} ${name} ${declaration.name}`);
  const expected = described.declarations.flatMap(({tagName, name}) => [`js ${name} ${name}`, `custom-element-definition ${tagName} ${name}`]);
  assert.deepEqual(exported.sort(), expected.sort());
});

test("the how-to names each event, method and slot of the chat", () => {
  const page = readFileSync(join(ROOT, "docs/howto/frontend.md"), "utf8");
  const [chat] = described.declarations;
  const methods = chat.members.filter(({kind, privacy}) => kind === "method" && privacy !== "private");
  assert.equal(methods.length, 4);
  for (const {name} of [...chat.events, ...chat.slots]) assert.ok(page.includes(`\`${name}\``), name);
  for (const {name} of methods) assert.ok(page.includes(`\`${name}(`), name);
});

test("the user's file in TypeScript uses every function and class that the package exports", () => {
  const {exports} = JSON.parse(read("package.json"));
  const declared = Object.entries(exports).flatMap(([path, {types}]) => (types ? [[`django-durable-agents${path.slice(1)}`, join(FOLDER, types)]] : []));
  const user = join(ROOT, "tests/js/uses-exports.ts");
  const paths = Object.fromEntries(declared.map(([name, file]) => [name, [file]]));
  const program = ts.createProgram([user], {paths, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, noLib: true, types: []});
  const checker = program.getTypeChecker();
  const imports = program.getSourceFile(user).statements.filter(ts.isImportDeclaration);
  const used = imports.flatMap(({moduleSpecifier, importClause}) => importClause.namedBindings.elements.map(({name}) => `${moduleSpecifier.text} ${name.text}`));
  const exported = declared.flatMap(([name, file]) => {
    const symbols = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)));
    return symbols.filter(({flags}) => flags & ts.SymbolFlags.Value).map((symbol) => `${name} ${symbol.name}`);
  });
  assert.ok(exported.length > 15, String(exported));
  assert.deepEqual(exported.filter((name) => !used.includes(name)), []);
});
