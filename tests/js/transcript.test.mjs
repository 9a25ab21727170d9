/** Rows by rev, deltas by (stream, seq): whatever the order they come in, the answer stands once. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {Transcript} from "../../durable_agents/static/durable_agents/durable-agents.js";
import {assistant, SNAPSHOT, text, textOf, user} from "./fakes.mjs";
import {randomSource} from "./random.mjs";

const STEP = {type: "step-start"};
const begin = [{type: "start-step"}, {type: "text-start", id: "t"}];
const say = (words) => [{type: "text-delta", id: "t", delta: words}];

function transcriptOf(snapshot = {}) {
  const transcript = new Transcript();
  transcript.reset({...SNAPSHOT, messages: [user("u", "Hi", 1), assistant("a", [], 2)], ...snapshot});
  return transcript;
}

const delta = (transcript, seq, chunks, stream = "s1") => transcript.delta({stream, message: "a", seq, chunks});
const answer = (transcript) => textOf(transcript.messages().find((message) => message.id === "a"));

test("deltas in order are shown as they come", () => {
  const transcript = transcriptOf();
  assert.equal(delta(transcript, 0, [...begin, ...say("Hel")]), "applied");
  assert.equal(delta(transcript, 1, say("lo")), "applied");
  assert.equal(answer(transcript), "Hello");
});

test("a delta that comes twice counts once", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("Hello")]);
  assert.equal(delta(transcript, 0, [...begin, ...say("Hello")]), "dropped");
  assert.equal(answer(transcript), "Hello");
});

test("a delta that comes early waits for the one before it", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, begin);
  assert.equal(delta(transcript, 3, say("!")), "held");
  assert.equal(delta(transcript, 2, say("lo")), "held");
  assert.deepEqual(transcript.gaps(), [{stream: "s1", from: 1, to: 1}]);
  assert.equal(answer(transcript), "");
  assert.equal(delta(transcript, 1, say("Hel")), "applied");
  assert.equal(answer(transcript), "Hello!");
  assert.deepEqual(transcript.gaps(), []);
});

test("more early deltas than can be held are an overflow", () => {
  const transcript = transcriptOf();
  const outcomes = Array.from({length: 65}, (_, index) => delta(transcript, index + 1, say("x")));
  assert.deepEqual(new Set(outcomes.slice(0, 64)), new Set(["held"]));
  assert.equal(outcomes[64], "overflow");
});

test("a committed step replaces what its deltas showed, and its late deltas are dropped", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("Hel")]);
  transcript.commit({type: "step", rev: 2, message: "a", stream: "s1", parts: [STEP, text("Hello!")]});
  assert.equal(delta(transcript, 1, say("lo!")), "dropped");
  assert.equal(answer(transcript), "Hello!");
});

test("steps stand in order though the next one's deltas came before the commit", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("one ")]);
  delta(transcript, 0, [...begin, ...say("two")], "s2");
  transcript.commit({type: "step", rev: 2, message: "a", stream: "s1", parts: [STEP, text("ONE ")]});
  assert.equal(answer(transcript), "ONE two");
});

test("a step whose deltas never came stands before those that are open", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("two")], "s2");
  transcript.commit({type: "step", rev: 2, message: "a", stream: "s1", parts: [STEP, text("ONE ")]});
  assert.equal(answer(transcript), "ONE two");
});

for (const status of ["superseded", "failed", "aborted"]) {
  test(`a stream that ends as ${status} takes what it showed with it`, () => {
    const transcript = transcriptOf();
    delta(transcript, 0, [...begin, ...say("half an ans")]);
    transcript.commit({type: "stream", rev: 2, message: "a", stream: "s1", status});
    assert.equal(answer(transcript), "");
    assert.equal(delta(transcript, 1, say("wer")), "dropped");
  });
}

test("after a killed attempt the answer stands once", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("The answer is 4")]);
  delta(transcript, 0, [...begin, ...say("The answer")], "s2");
  transcript.commit({type: "stream", rev: 2, message: "a", stream: "s1", status: "superseded"});
  delta(transcript, 1, say(" is 42"), "s2");
  assert.equal(answer(transcript), "The answer is 42");
});

test("what a stop kept stays though its stream is aborted", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("Once upon")]);
  transcript.commit({type: "step", rev: 2, message: "a", stream: "s1", parts: [STEP, text("Once upon")]});
  transcript.commit({type: "stream", rev: 3, message: "a", stream: "s1", status: "aborted"});
  assert.equal(answer(transcript), "Once upon");
});

test("a finished stream keeps its text until the step comes", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("Hello")]);
  transcript.commit({type: "stream", rev: 2, message: "a", stream: "s1", status: "finished"});
  assert.equal(answer(transcript), "Hello");
});

test("a frame that the snapshot contains changes nothing", () => {
  const transcript = transcriptOf({rev: 5});
  assert.equal(transcript.commit({type: "step", rev: 5, message: "a", stream: "s0", parts: [text("twice")]}), false);
  assert.equal(answer(transcript), "");
});

test("a frame from before the last one changes nothing, one of the same rev does", () => {
  const transcript = transcriptOf();
  transcript.commit({type: "step", rev: 7, message: "a", stream: "s1", parts: [text("done")]});
  assert.equal(transcript.commit({type: "thread", rev: 6, status: "streaming"}), false);
  assert.equal(transcript.commit({type: "thread", rev: 7, status: "failed"}), true);
  assert.equal(transcript.status, "failed");
});

test("a step that comes again replaces itself", () => {
  const transcript = transcriptOf();
  for (const rev of [2, 3]) transcript.commit({type: "step", rev, message: "a", stream: "s1", parts: [text("once")]});
  assert.equal(answer(transcript), "once");
});

test("a snapshot in the middle of an answer goes on with the next delta", () => {
  const parts = [STEP, text("Step one. "), STEP, text("Step t", "streaming")];
  const transcript = transcriptOf({
    rev: 7,
    messages: [assistant("a", parts, 2)],
    streams: [{stream: "s2", message: "a", seq: 4, status: "streaming"}],
  });
  assert.equal(delta(transcript, 4, say("seen"), "s2"), "dropped");
  assert.equal(delta(transcript, 5, [{type: "text-delta", id: "t", delta: "wo"}], "s2"), "applied");
  assert.equal(answer(transcript), "Step one. Step two");
  transcript.commit({type: "step", rev: 8, message: "a", stream: "s2", parts: [STEP, text("Step two.")]});
  assert.equal(answer(transcript), "Step one. Step two.");
});

test("a snapshot of a stream without deltas keeps the steps before it", () => {
  const transcript = transcriptOf({
    messages: [assistant("a", [STEP, text("Step one.")], 2)],
    streams: [{stream: "s2", message: "a", seq: -1, status: "streaming"}],
  });
  transcript.commit({type: "stream", rev: 8, message: "a", stream: "s2", status: "superseded"});
  assert.equal(answer(transcript), "Step one.");
});

test("the cursor names the open stream and the last delta shown", () => {
  const transcript = new Transcript();
  assert.equal(transcript.cursor(), null);
  transcript.reset({...SNAPSHOT, rev: 3});
  assert.deepEqual(transcript.cursor(), {rev: 3, stream: "", seq: -1});
  delta(transcript, 0, begin);
  delta(transcript, 2, say("early"));
  assert.deepEqual(transcript.cursor(), {rev: 3, stream: "s1", seq: 0});
});

test("a tool moves on by patches", () => {
  const call = {type: "tool-add", toolCallId: "c", state: "input-available", input: {a: 1}};
  const transcript = transcriptOf({messages: [assistant("a", [STEP, call], 2)]});
  const part = () => transcript.messages()[0].parts[1];
  const patch = (rev, fields) => transcript.commit({type: "tool", rev, tool_call_id: "c", ...fields});
  patch(2, {status: "running", progress: 0.5});
  assert.deepEqual(part(), {...call, state: "output-available", output: 0.5, preliminary: true});
  patch(3, {status: "approval_requested"});
  assert.deepEqual(part(), {...call, state: "approval-requested", approval: {id: "c"}});
  patch(4, {status: "unknown", error: "It may have run."});
  assert.equal(part().errorText, "It may have run.");
  patch(5, {status: "completed", output: 3});
  assert.equal(part().state, "output-available");
  assert.equal(part().output, 3);
  assert.equal("errorText" in part(), false);
});

test("an approval moves a call on, and leaves what a snapshot would show", () => {
  const call = {type: "tool-pay", toolCallId: "c", state: "input-available", input: {amount: 5}};
  const transcript = transcriptOf({messages: [assistant("a", [STEP, {...call, state: "approval-requested", approval: {id: "c"}}], 2)]});
  const part = () => transcript.messages()[0].parts[1];
  const patch = (rev, fields) => transcript.commit({type: "tool", rev, tool_call_id: "c", ...fields});
  patch(2, {status: "pending"});
  assert.deepEqual(part(), call);
  patch(3, {status: "running", progress: {done: 1, total: 2}});
  assert.deepEqual(part(), {...call, state: "output-available", output: {done: 1, total: 2}, preliminary: true});
  patch(4, {status: "completed", output: null});
  assert.deepEqual(part(), {...call, state: "output-available", output: null});
});

for (const [status, error] of [["denied", undefined], ["expired", "Nobody answered."], ["cancelled", "Stopped."]]) {
  test(`a question that ends as ${status} is a question no more`, () => {
    const asked = {type: "tool-pay", toolCallId: "c", state: "approval-requested", input: {}, approval: {id: "c"}};
    const transcript = transcriptOf({messages: [assistant("a", [STEP, asked], 2)]});
    transcript.commit({type: "tool", rev: 2, tool_call_id: "c", status, ...(error ? {error} : {})});
    const {state, approval, errorText} = transcript.messages()[0].parts[1];
    const wanted = status === "denied" ? ["output-denied", {id: "c", approved: false}, undefined] : ["output-error", undefined, error];
    assert.deepEqual([state, approval, errorText], wanted);
  });
}

test("who watches learns how a question was decided", () => {
  const asked = {type: "tool-pay", toolCallId: "c", state: "approval-requested", input: {}, approval: {id: "c"}};
  const transcript = transcriptOf({messages: [assistant("a", [STEP, asked], 2)]});
  transcript.commit({type: "tool", rev: 2, tool_call_id: "c", status: "running"});
  const running = transcript.messages()[0].parts[1];
  assert.deepEqual(running, {type: "tool-pay", toolCallId: "c", state: "input-available", input: {}});
  const approval = {id: "c", approved: true, reason: "Fine."};
  transcript.commit({type: "tool", rev: 3, tool_call_id: "c", status: "completed", output: 1, approval});
  assert.deepEqual(transcript.messages()[0].parts[1], {...running, state: "output-available", output: 1, approval});
});

test("messages stand by position, queued ones behind, unsent ones last", () => {
  const transcript = transcriptOf({messages: [user("queued", "later", null), assistant("a", [], 2), user("u", "Hi", 1)]});
  transcript.draft("draft", [text("now")]);
  assert.deepEqual(transcript.messages().map(({id}) => id), ["u", "a", "queued", "draft"]);
  transcript.commit({type: "message", rev: 2, message: user("queued", "later", 3)});
  transcript.commit({type: "removed", rev: 3, ids: ["a"]});
  assert.deepEqual(transcript.messages().map(({id}) => id), ["u", "queued", "draft"]);
});

test("an answer whose row changes keeps its steps", () => {
  const transcript = transcriptOf();
  transcript.commit({type: "step", rev: 2, message: "a", stream: "s1", parts: [text("Hello")]});
  transcript.commit({type: "message", rev: 3, message: {...assistant("a", [], 2), metadata: {done: true}}});
  assert.equal(answer(transcript), "Hello");
  assert.deepEqual(transcript.messages()[1].metadata, {done: true});
});

test("a replaced message keeps what is being written to it", () => {
  const transcript = transcriptOf();
  delta(transcript, 0, [...begin, ...say("new")]);
  transcript.commit({type: "message", rev: 2, message: assistant("a", [STEP, text("old ")], 2)});
  assert.equal(answer(transcript), "old new");
});

test("unchanged messages stay the same objects over changes and snapshots", () => {
  const transcript = transcriptOf();
  const [first] = transcript.messages();
  delta(transcript, 0, begin);
  assert.equal(transcript.messages()[0], first);
  transcript.reset({...SNAPSHOT, rev: 2, messages: [user("u", "Hi", 1), assistant("a", [text("x")], 2)]});
  assert.equal(transcript.messages()[0], first);
});

/** What a server publishes for a run of several steps with attempts that die: [durable frames, deltas]. */
function randomRun(random) {
  const frames = [];
  let rev = 1;
  let expected = "";
  const steps = 1 + random.below(3);
  for (let step = 0, stream = 0; step < steps; stream++) {
    const words = Array.from({length: 1 + random.below(8)}, (_, index) => `${step}.${stream}.${index} `);
    const id = `s${stream}`;
    frames.push({type: "delta", stream: id, message: "a", seq: 0, chunks: begin});
    words.forEach((word, index) => frames.push({type: "delta", stream: id, message: "a", seq: index + 1, chunks: say(word)}));
    if (random.below(2)) {
      frames.push({type: "stream", rev: ++rev, message: "a", stream: id, status: "superseded"});
      continue;
    }
    frames.push({type: "step", rev: ++rev, message: "a", stream: id, parts: [STEP, text(words.join(""))]});
    expected += words.join("");
    step++;
  }
  return {frames, expected};
}

test("deltas lost, doubled and out of order leave what the server stored", () => {
  for (let seed = 0; seed < 300; seed++) {
    const random = randomSource(seed);
    const {frames, expected} = randomRun(random);
    const transcript = transcriptOf();
    const late = [];
    for (const frame of frames) {
      if (frame.type !== "delta") transcript.commit(frame);
      else if (random.below(10) === 0) late.push(frame);
      else for (let copies = random.below(10) ? 1 : 2; copies > 0; copies--) transcript.delta(frame);
      if (late.length && random.below(4) === 0) transcript.delta(late.pop());
    }
    for (const frame of late) transcript.delta(frame);
    assert.equal(answer(transcript), expected, `seed ${seed}`);
  }
});

test("a message that is told anew without its parts still lacks the steps that it lacked", () => {
  const transcript = transcriptOf({messages: [{...assistant("a", [STEP, text("two")], 2), omitted: 1}]});
  transcript.commit({type: "message", rev: 2, message: {...assistant("a", [], 2), metadata: {done: true}}});
  assert.equal(transcript.messages()[0].omitted, 1);
  transcript.addOlder([assistant("a", [STEP, text("one ")], 2)], false);
  assert.deepEqual([answer(transcript), transcript.messages()[0].omitted], ["one two", undefined]);
});

test("steps that are not right before those shown are not put there", () => {
  const transcript = transcriptOf({messages: [{...assistant("a", [STEP, text("three")], 2), omitted: 2}]});
  const [before] = transcript.messages();
  transcript.addOlder([assistant("a", [STEP, text("one ")], 2)], true);
  assert.equal(transcript.messages()[0], before);
});

/** The last messages and steps of a thread, so many steps in all: what a server has room for. */
function newest(messages, room) {
  const kept = [];
  for (const message of messages.toReversed()) {
    const starts = message.parts.flatMap(({type}, index) => (type === "step-start" ? [index] : []));
    const steps = Math.max(starts.length, 1);
    if (room <= 0) break;
    kept.unshift(steps <= room ? message : {...message, parts: message.parts.slice(starts[steps - room]), omitted: steps - room});
    room -= steps;
  }
  return {messages: kept, hasOlder: kept.length < messages.length || Boolean(kept[0].omitted)};
}

/** What a server answers to `older`. */
function pageOf(messages, {position, omitted = 0}, room) {
  const before = messages.filter((message) => message.position < position);
  const asked = messages.find((message) => message.position === position);
  const starts = asked.parts.flatMap(({type}, index) => (type === "step-start" ? [index] : []));
  return newest(omitted ? [...before, {...asked, parts: asked.parts.slice(0, starts[omitted])}] : before, room);
}

test("a snapshot and its pages are the whole thread, while it goes on", () => {
  for (let seed = 0; seed < 200; seed++) {
    const random = randomSource(seed);
    const stepsOf = (id) => Array.from({length: 1 + random.below(6)}, (_, step) => [STEP, text(`${id}.${step}`)]).flat();
    const messages = Array.from({length: 1 + random.below(5)}, (_, index) =>
      index % 2 ? user(`m${index}`, "Hi", index) : assistant(`m${index}`, stepsOf(index), index));
    const transcript = transcriptOf(newest(messages, 1 + random.below(4)));
    const last = messages.findLast(({role}) => role === "assistant");
    for (let rev = 2; transcript.hasOlder; rev++) {
      const page = pageOf(messages, transcript.messages()[0], 1 + random.below(4));
      transcript.addOlder(page.messages, page.hasOlder);
      if (random.below(2) || !transcript.entries.has(last.id)) continue;
      const parts = [STEP, text(`new ${rev}`)];
      last.parts = [...last.parts, ...parts];
      transcript.commit({type: "step", rev, message: last.id, stream: `s${rev}`, parts});
    }
    assert.deepEqual(transcript.messages(), messages, `seed ${seed}`);
  }
});
