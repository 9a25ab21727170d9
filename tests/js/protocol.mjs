/** The published JSON schema of the frames, as strictly as our client has to keep to it. */

import assert from "node:assert/strict";
import {readFileSync} from "node:fs";

const file = new URL("../../durable_agents/static/durable_agents/websocket.schema.json", import.meta.url);
const SCHEMA = JSON.parse(readFileSync(file, "utf8"));

const typeOf = (value) => (value === null ? "null" : Array.isArray(value) ? "array" : typeof value);
const isOfType = (value, type) => type === typeOf(value) || (type === "integer" && Number.isInteger(value));

/** What each keyword of the schema asks of a value: the words for what is wrong, or nothing. */
const KEYWORDS = {
  description: () => [],
  $ref: (value, ref) => problems(value, SCHEMA.$defs[ref.slice("#/$defs/".length)]),
  const: (value, wanted) => (value === wanted ? [] : [`is not ${wanted}`]),
  enum: (value, wanted) => (wanted.includes(value) ? [] : [`is none of ${wanted}`]),
  type: (value, type) => ([type].flat().some((one) => isOfType(value, one)) ? [] : [`is no ${type}`]),
  minLength: (value, least) => (typeof value !== "string" || value.length >= least ? [] : ["is too short"]),
  maxLength: (value, most) => (typeof value !== "string" || value.length <= most ? [] : ["is too long"]),
  required: (value, names) => names.filter((name) => !(name in Object(value))).map((name) => `lacks ${name}`),
  properties: (value, schemas) => Object.entries(schemas).flatMap(([name, schema]) =>
    name in Object(value) ? problems(value[name], schema).map((problem) => `${name} ${problem}`) : []),
  items: (value, schema) => [value].flat().flatMap((item) => problems(item, schema)),
  anyOf: (value, schemas) => (schemas.some((schema) => problems(value, schema).length === 0) ? [] : ["fits none"]),
  oneOf: (value, schemas) => (schemas.filter((schema) => problems(value, schema).length === 0).length === 1 ? [] : ["does not fit one"]),
};

/** A keyword that is not known here throws: nothing is passed over. */
function problems(value, schema) {
  const found = Object.entries(schema).flatMap(([keyword, argument]) => KEYWORDS[keyword](value, argument));
  const isClosed = schema.type === "object" && schema.properties && isOfType(value, "object");
  const strange = isClosed ? Object.keys(value).filter((name) => !(name in schema.properties)) : [];
  return [...found, ...strange.map((name) => `has a strange ${name}`)];
}

/** The types of frames that a side sends. @param {"client"|"server"} side */
export const typesOf = (side) => SCHEMA.$defs[side].oneOf.map(({properties}) => properties.type.const);

/** Holds a frame against what the schema says of its type. @param {"client"|"server"} side */
export function checkFrame(side, frame) {
  const described = SCHEMA.$defs[side].oneOf.find(({properties}) => properties.type.const === frame.type);
  assert.ok(described, `the schema names no ${frame.type}`);
  assert.deepEqual(problems(frame, described), [], JSON.stringify(frame));
}
