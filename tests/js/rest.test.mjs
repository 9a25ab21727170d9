/** The HTTP side of the client. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {start} from "./fakes.mjs";

function startRest(t, answers, options = {}) {
  const fetch = t.mock.fn(async () => answers.shift());
  const started = start(t, {fetch, ...options});
  const request = (index = 0) => {
    const [url, init] = fetch.mock.calls[index].arguments;
    return {url: url.href, ...init, body: init.body && JSON.parse(init.body)};
  };
  return {...started, request};
}

const json = (body, status = 200) => new Response(JSON.stringify(body), {status});

test("the agents are listed, not their page", async (t) => {
  const agents = [{name: "assistant", description: "", tools: [{name: "pay", description: "", kind: "sync", needs_approval: true}]}];
  const {client, request} = startRest(t, [json({results: agents, next: null, previous: null})]);
  assert.deepEqual(await client.listAgents(), agents);
  assert.equal(request().url, "http://site.test/agents/agents/");
});

test("threads are listed by filter and then by page", async (t) => {
  const next = "http://site.test/agents/threads/?cursor=abc";
  const {client, request} = startRest(t, [json({results: [], next}), json({results: [], next: null})]);
  const page = await client.listThreads({limit: 20, agent: undefined, search: "a b"});
  assert.equal(request().url, "http://site.test/agents/threads/?limit=20&search=a+b");
  await client.listThreads({page: page.next});
  assert.equal(request(1).url, next);
  assert.equal(request().headers.has("X-CSRFToken"), false);
});

test("a thread is created with an id of ours and the token of the cookie", async (t) => {
  const {client, request, page} = startRest(t, [json({id: "t9"}, 201)]);
  page.document.cookie = "theme=dark; csrftoken=s3cret; x=y";
  assert.equal((await client.createThread({agent: "assistant"})).id, "t9");
  const {method, headers, body, credentials} = request();
  assert.deepEqual([method, headers.get("X-CSRFToken"), body.agent, credentials], ["POST", "s3cret", "assistant", "same-origin"]);
  assert.ok(body.client_id);
});

test("token and headers may be given", async (t) => {
  const options = {csrf: () => "given", headers: () => ({Authorization: "Token x"})};
  const {client, request} = startRest(t, [new Response(null, {status: 204})], options);
  assert.equal(await client.deleteThread("a/b"), undefined);
  assert.equal(request().url, "http://site.test/agents/threads/a%2Fb/");
  assert.deepEqual([request().headers.get("X-CSRFToken"), request().headers.get("Authorization")], ["given", "Token x"]);
});

test("an error of the server comes with its code", async (t) => {
  const {client} = startRest(t, [json({code: "agent_not_found", detail: "There is no agent 'x'."}, 400)]);
  const expected = {name: "DurableAgentsError", code: "agent_not_found", message: "There is no agent 'x'.", status: 400, retryable: false};
  await assert.rejects(client.createThread({agent: "x"}), expected);
});

test("a page of HTML in place of an answer is an error, not a crash", async (t) => {
  const {client} = startRest(t, [new Response("<html>Sign in</html>"), new Response("<html>Oops</html>", {status: 502})]);
  await assert.rejects(client.listAgents(), {code: "unexpected_answer", retryable: false});
  await assert.rejects(client.listAgents(), {code: "unexpected_answer", status: 502, retryable: true});
});

test("no network is an error that may be retried", async (t) => {
  const fetch = t.mock.fn(() => Promise.reject(new TypeError("Failed to fetch")));
  const {client} = start(t, {fetch});
  await assert.rejects(client.updateThread("t1", {title: "x"}), {code: "disconnected", retryable: true});
});
