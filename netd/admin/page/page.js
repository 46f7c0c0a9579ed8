// The page: what the daemon tells once a second, laid out. It knows of no kind of service: what to draw of each, and
// what its figures mean, the daemon says as the page opens.

import { Chart } from "./chart.js";
import { Feed } from "./feed.js";
import { bytes, clockTime, count, duration, share, short } from "./format.js";
import { Series } from "./series.js";
import { ServiceDetails, perSecond } from "./service.js";
import { element, link, text } from "./dom.js";

const PROCESS = "netd";
const MOST_LINES = 6;
const $ = (id) => document.getElementById(id);

const series = new Series();
const charts = [];
const details = new Map();
const rows = new Map();
let about = { figures: {}, charts: {}, latencies: {} };
let latest = null;

// --- charts of the whole daemon

function overview(status) {
  charts.splice(0).forEach((each) => each.chart.remove());
  const all = (name) => status.services.map((each) => series.rates(each.name, name));
  const total = (name) => sum(all(name));
  const shown = status.services.filter((each) => each.kind !== "admin").slice(0, MOST_LINES).map((each) => each.name);
  const add = (options, lists) => charts.push({ chart: new Chart($("overview"), options), lists });
  add({ title: "Connections", lines: shown, format: count, axis: short, ceiling: 4 },
    () => shown.map((name) => series.values(name, "connections")));
  add({ title: "Traffic", lines: ["in", "out"], format: perSecond(bytes), axis: bytes, ceiling: 1024, dashed: "out" },
    () => [total("bytes_in"), total("bytes_out")]);
  add({ title: "New connections", lines: ["accepted", "refused"], format: perSecond(count), axis: short, ceiling: 4 },
    () => [total("connections_accepted"), total("connections_refused")]);
  add({ title: "Processor", help: "Share of one core", lines: ["one core"], format: share, ceiling: 0.02 },
    () => [series.rates(PROCESS, "cpu_seconds")]);
  add({ title: "Memory", help: "Resident", lines: ["resident"], format: bytes },
    () => [series.values(PROCESS, "memory_bytes")]);
  add({ title: "Event loop is late by", lines: ["p50", "p99"], format: duration, ceiling: 0.002 },
    () => ["p50", "p99"].map((each) => series.values(PROCESS, `lag.${each}`)));
}

function sum(lists) {
  return series.clock.map((_, at) => {
    const there = lists.map((list) => list[at]).filter((each) => each !== null);
    return there.length ? there.reduce((total, each) => total + each, 0) : null;
  });
}

function draw() {
  if (!latest || document.hidden) return;
  const offset = latest.time - latest.clock;
  const from = Math.max(0, series.clock.findIndex((each) => each >= series.clock.at(-1) - Number($("window").value)));
  const moments = series.clock.slice(from).map((each) => each + offset);
  for (const { chart, lists } of charts) chart.set(moments, lists().map((list) => list.slice(from)));
  for (const each of details.values()) each.draw(moments, from);
}

// --- words and tables

function header(status) {
  text($("host"), `on ${status.host}`);
  document.title = `${status.ready ? "" : "⚠ "}netd on ${status.host}`;
  const unready = Object.keys(status.unready);
  text($("ready"), status.ready ? "ready" : `not ready: ${unready.join(", ")}`);
  $("ready").dataset.state = status.ready ? "up" : "down";
  const { open, limit } = status.descriptors;
  const pairs = {
    version: status.netd, pid: status.pid, up: duration(status.uptime_seconds), connections: count(status.connections),
    memory: bytes(status.memory_bytes), descriptors: `${count(open)} of ${count(limit)}`, log: status.log.level,
  };
  const list = $("process");
  if (!list.children.length) {
    for (const name of Object.keys(pairs)) list.append(element("div", {}, element("dt", {}, name), element("dd", { id: `process-${name}` })));
  }
  for (const [name, value] of Object.entries(pairs)) text($(`process-${name}`), value);
}

function services(status) {
  const names = new Set(status.services.map((each) => each.name));
  for (const [name, row] of rows) {
    if (names.has(name)) continue;
    row.remove();
    rows.delete(name);
    details.get(name).remove();
    details.delete(name);
  }
  for (const each of status.services) {
    if (!rows.has(each.name)) {
      const row = element("tr", {}, element("th", { scope: "row" }, link(`#${each.name}`, each.name)));
      for (let cell = 0; cell < 7; cell += 1) row.append(element("td", { className: cell > 1 ? "n" : "" }));
      row.dataset.service = each.name;
      $("table").tBodies[0].append(row);
      rows.set(each.name, row);
      details.set(each.name, new ServiceDetails($("details"), each, about, series));
    }
    const [, state, listening, connections, accepted, refused, into, out] = rows.get(each.name).cells;
    text(state, each.state === "unwell" ? `unwell: ${each.reason}` : each.state);
    state.dataset.state = each.state;
    text(listening, each.listening.join(", "));
    text(connections, count(each.connections));
    text(accepted, count(series.rate(each.name, "connections_accepted")));
    text(refused, count(Object.values(each.refused).reduce((total, reason) => total + reason, 0)));
    text(into, bytes(series.rate(each.name, "bytes_in")));
    text(out, bytes(series.rate(each.name, "bytes_out")));
    details.get(each.name).update(each);
  }
}

function sessions({ count: found, shown }) {
  $("sessions").hidden = !found;
  text($("sessions-title"), found > shown.length ? `Logged in: ${shown.length} of ${found}` : "Logged in");
  const body = $("sessions").querySelector("tbody");
  body.replaceChildren(...shown.map((each) => element("tr", {},
    element("th", { scope: "row" }, each.user || "–"), element("td", {}, each.role || "–"), element("td", {}, each.peer),
    element("td", { className: "n" }, duration(each.seconds)), element("td", {}, each.doing), element("td", {}, each.service))));
}

function log(lines) {
  const told = lines.length ? lines.join("\n") : "None since the start.";
  const atEnd = $("log").scrollTop + $("log").clientHeight >= $("log").scrollHeight - 4;
  if (!text($("log"), told) || !atEnd) return;
  $("log").scrollTop = $("log").scrollHeight;
}

// --- news

const listener = {
  hello(document) {
    about = document;
    series.load(document.history);
    rows.forEach((row) => row.remove());
    rows.clear();
    details.forEach((each) => each.remove());
    details.clear();
    latest = null;
  },

  status(status) {
    if (status.sample) series.add(status.sample);
    const known = latest?.services.map((each) => each.name).join();
    latest = status;
    header(status);
    services(status);
    if (known !== status.services.map((each) => each.name).join()) overview(status);
    sessions(status.sessions);
    log(status.log_lines);
    draw();
  },

  stale(since) {
    document.body.classList.toggle("is-stale", since !== null);
    $("stale").hidden = since === null;
    if (since !== null) text($("stale"), `No news from netd since ${clockTime(new Date(since))}. What you see is old; trying again.`);
  },
};

// --- what the reader chooses

function restyle() {
  for (const each of charts) each.chart.draw();
  for (const each of details.values()) each.restyle();
  draw();
}

const theme = $("theme");
theme.value = localStorage.getItem("theme") ?? "";
document.documentElement.dataset.theme = theme.value;
theme.addEventListener("change", () => {
  localStorage.setItem("theme", theme.value);
  document.documentElement.dataset.theme = theme.value;
  restyle();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
$("window").addEventListener("change", draw);
document.addEventListener("visibilitychange", draw);
new Feed("events", listener);
