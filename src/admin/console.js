// Fills the page from the API. Text from the record is only ever set as text, never as markup.
"use strict";

const every = 5000;
const find = (id) => document.getElementById(id);
let token = "";

function make(tag, names, text) {
  const element = document.createElement(tag);
  if (names) element.className = names;
  if (text !== undefined && text !== null) element.textContent = String(text);
  return element;
}

async function ask(path) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  find("sign-in").hidden = answer.status !== 401;
  const body = await answer.json();
  if (!answer.ok && path !== "readyz") throw new Error(body.error || "status " + answer.status);
  return body;
}

function moment(text) {
  if (!text) return "";
  const at = new Date(text);
  const seconds = Math.round((Date.now() - at.getTime()) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h ago";
  return at.toISOString().slice(0, 16).replace("T", " ") + " UTC";
}

function short(digest) {
  return digest ? digest.slice(digest.indexOf(":") + 1).slice(0, 12) : "—";
}

function image(row) {
  return row.registry + "/" + row.repository + (row.tag ? ":" + row.tag : "");
}

function timed(text) {
  const element = make("time", "", moment(text));
  if (text) {
    element.dateTime = text;
    element.title = text;
  }
  return element;
}

function violation(row) {
  const card = make("article", "card " + (row.state === "resolved" ? "resolved" : row.severity));
  card.append(make("p", "image", image(row)), make("p", "", row.message));
  if (row.advice && row.state !== "resolved") card.append(make("p", "advice", row.advice));
  const meta = make("p", "meta");
  const chip = row.state === "firing" ? row.severity : row.state === "resolved" ? "good" : row.state;
  meta.append(make("span", "chip " + chip, row.state === "firing" ? row.severity : row.state));
  if (row.preview) meta.append(make("span", "chip", "preview"));
  meta.append(make("span", "", row.policy + " · " + row.requirement), make("code", "", row.reason));
  const since = make("span", "", "since ");
  since.append(timed(row.since));
  meta.append(since);
  if (row.state === "pending" && row.firesAt) meta.append(make("span", "", "fires " + row.firesAt.slice(0, 16).replace("T", " ") + " UTC"));
  card.append(meta);
  return card;
}

function event(row) {
  const line = make("tr");
  const received = make("td");
  received.append(timed(row.receivedAt));
  const state = make("td");
  const kind = { judged: "good", dead: "critical", retrying: "warning" }[row.state] || "";
  const chip = make("span", "chip " + kind, row.state);
  if (row.fault) chip.title = row.fault;
  state.append(chip);
  const digest = make("td", "mono", short(row.digest));
  if (row.digest) digest.title = row.digest;
  line.append(received, make("td", "", row.source), make("td", "", row.action), make("td", "image", image(row)), digest, state);
  return line;
}

async function health() {
  const element = find("health");
  try {
    const ready = await ask("readyz");
    element.dataset.state = ready.ready ? "good" : "bad";
    element.textContent = ready.ready ? "ready" : "not ready: " + ready.reasons.join("; ");
  } catch {
    element.dataset.state = "bad";
    element.textContent = "no answer";
  }
}

async function lists() {
  try {
    const state = find("state").value;
    const [open, recent] = await Promise.all([
      ask("api/v1/violations?limit=100&state=" + encodeURIComponent(state)),
      ask("api/v1/events?limit=25"),
    ]);
    const violations = open.violations.map(violation);
    find("violations").replaceChildren(...(violations.length ? violations : [make("p", "empty", state === "resolved" ? "Nothing was resolved yet." : "Every image on record is as its policies ask.")]));
    const counts = {};
    for (const row of open.violations) {
      const kind = row.state === "firing" ? row.severity : row.state;
      counts[kind] = (counts[kind] || 0) + 1;
    }
    const chips = Object.entries(counts).map(([kind, count]) => make("span", "chip " + (kind === "resolved" ? "good" : kind), count + (open.next ? "+" : "") + " " + kind));
    find("counts").replaceChildren(...chips);
    const events = recent.events.map(event);
    if (!events.length) {
      const cell = make("td", "", "No event has come yet.");
      cell.colSpan = 6;
      const line = make("tr");
      line.append(cell);
      events.push(line);
    }
    find("events").replaceChildren(...events);
    find("note").textContent = "as of " + new Date().toLocaleTimeString();
  } catch (fault) {
    find("note").textContent = fault.message;
  }
}

async function refresh() {
  await health();
  await lists();
}

find("state").addEventListener("change", lists);
find("sign-in").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  token = find("token").value.trim();
  find("token").value = "";
  refresh();
});
(async function again() {
  await refresh();
  setTimeout(again, every);
})();
