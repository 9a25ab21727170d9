/** Run the cases with one major of the AI SDK: node run.mjs 7|6 [words of the names of cases] */

import * as answering from "./answering.mjs";
import * as changing from "./changing.mjs";
import * as following from "./following.mjs";
import * as leaving from "./leaving.mjs";
import * as refusing from "./refusing.mjs";
import * as socket from "./socket.mjs";
import * as waiting from "./waiting.mjs";
import {Scene, importSdk} from "./scene.mjs";
import {sessionOf, tokenOf} from "./site.mjs";

const SECONDS = 90;
const [major, ...wanted] = process.argv.slice(2);
const cases = Object.assign({}, ...[answering, waiting, leaving, following, changing, refusing, socket].map((module) => module.cases));
const sdk = await importSdk(major);
const users = {demo: await tokenOf("demo"), guest: await tokenOf("guest"), session: await sessionOf("demo")};
const ended = {passed: 0, failed: 0};

function within(promise, seconds) {
  const late = new Promise((_, reject) => setTimeout(reject, seconds * 1000, new Error(`not over after ${seconds} s`)).unref());
  return Promise.race([promise, late]);
}

for (const [name, play] of Object.entries(cases)) {
  if (wanted.length > 0 && !wanted.some((word) => name.includes(word))) continue;
  const scene = new Scene({major, sdk, users, name});
  const began = performance.now();
  try {
    await within(play(scene), SECONDS);
    ended.passed++;
    console.log(`ok      ai ${major}: ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    ended.failed++;
    console.log(`FAILED  ai ${major}: ${name}\n${error.stack}\n${heard(scene)}`);
  }
}

/** The last of what the clients of a case asked for and heard. */
function heard({recorders}) {
  const exchanges = recorders.flatMap(({posts, responses, errors}, index) => [
    ...posts.map((post) => `  client ${index} posted ${JSON.stringify(post).slice(0, 600)}`),
    ...responses.map(({status, text}) => `  client ${index} heard ${status}: ${text.slice(-1500)}`),
    ...errors.map((error) => `  client ${index} complained: ${error}`),
  ]);
  return exchanges.join("\n");
}

console.log(`AI SDK ${major} on Node ${process.versions.node}:\n${ended.passed} passed, ${ended.failed} failed`);
process.exit(ended.failed ? 1 : 0);
