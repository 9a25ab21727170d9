/** The site and the control server as the cases reach them. */

import assert from "node:assert/strict";

export const SITE = process.env.SITE_URL;
const CONTROL = process.env.CONTROL_URL;

/** Ask the control server; see `tests/aisdk/stage.py` for what there is. */
export async function control(name, body) {
  const response = await fetch(`${CONTROL}/${name}`, {method: "POST", body: JSON.stringify(body)});
  assert.equal(response.status, 200, `control ${name}`);
  return response.json();
}

/** The headers of a user, signed in by token; the password of the demo's users is their name. */
export async function tokenOf(username) {
  const body = new URLSearchParams({username, password: username});
  const response = await fetch(`${SITE}/api-token-auth/`, {method: "POST", body});
  return {Authorization: `Token ${(await response.json()).token}`};
}

/** The headers of a user, signed in on the page as a browser is: the session's cookies and the CSRF token. */
export async function sessionOf(username) {
  const page = `${SITE}/accounts/login/`;
  const before = cookiesOf(await fetch(page));
  const form = {username, password: username, csrfmiddlewaretoken: before.csrftoken, next: "/"};
  const response = await fetch(page, {
    method: "POST",
    body: new URLSearchParams(form),
    headers: {Cookie: written(before)},
    redirect: "manual",
  });
  assert.equal(response.status, 302, "sign-in");
  const cookies = {...before, ...cookiesOf(response)};
  return {Cookie: written(cookies), "X-CSRFToken": cookies.csrftoken};
}

function cookiesOf(response) {
  const lines = response.headers.getSetCookie();
  return Object.fromEntries(lines.map((line) => line.split(";")[0].split(/=(.*)/s).slice(0, 2)));
}

const written = (cookies) => Object.entries(cookies).map(([name, value]) => `${name}=${value}`).join("; ");

/** Wait until a condition, which may be asynchronous, is true, and return its value. */
export async function until(condition, what, seconds = 20) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) assert.fail(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
