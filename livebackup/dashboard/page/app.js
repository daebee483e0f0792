"use strict";
// The page: asks for the state and the curves, and draws them. Whatever comes from the
// database is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let range = "recent";

function el(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function svg(tag, attributes, text) {
  const e = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) e.setAttribute(name, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (n < 10 && i > 0 ? n.toFixed(1).replace(/\.0$/, "") : Math.round(n)) + " " + units[i];
}

function count(n) { return n > 0 && n < 9.95 ? n.toFixed(1) : Math.round(n).toLocaleString("en"); }

function elapsed(ns) {
  const s = ns / 1e9;
  if (s <= 0) return "0 s";
  if (s < 0.001) return Math.round(s * 1e6) + " µs";
  if (s < 1) return (s < 0.01 ? (s * 1000).toFixed(1) : Math.round(s * 1000)) + " ms";
  if (s < 59.5) return (s < 10 ? s.toFixed(1).replace(/\.0$/, "") : Math.round(s)) + " s";
  const whole = Math.round(s), minutes = Math.round(s / 60); // round first: there is no 1 min 60 s
  if (whole < 3600) return Math.floor(whole / 60) + " min " + whole % 60 + " s";
  if (s < 172800) return Math.floor(minutes / 60) + " h " + minutes % 60 + " min";
  return Math.floor(s / 86400) + " days";
}

const clock = (t) => new Date(t).toLocaleTimeString("en-GB");
const percent = (share) => Math.round(share * 100) + " %";

function gauge(role, label, share, text) {
  const g = el("div", "gauge"), fill = el("i");
  g.setAttribute("role", role);
  g.setAttribute("aria-label", label);
  g.setAttribute("aria-valuemin", "0");
  g.setAttribute("aria-valuemax", "100");
  g.setAttribute("aria-valuenow", Math.round(Math.min(share, 1) * 100));
  g.setAttribute("aria-valuetext", text);
  fill.style.width = Math.min(share, 1) * 100 + "%";
  g.append(fill);
  return g;
}

const states = ["normal", "low", "high", "critical"];

// worst is the state that deserves more attention: by how full a level is, or how soon.
function worst(l) {
  const soon = states.indexOf(l.time_state) > states.indexOf(l.state);
  return soon ? [l.time_state, l.time_state + " soon"] : [l.state, l.state];
}

function showLevels(list) {
  $("levels").replaceChildren(...list.map((l) => {
    const [state, words] = worst(l), amount = l.unit === "ns" ? elapsed : bytes;
    const row = el("div", "level " + state);
    const bar = gauge("meter", l.name, l.share, percent(l.share) + ", " + words);
    bar.append(el("b"), el("b"), el("b"));
    const of = l.limit > 0 ? amount(l.used) + " of " + amount(l.limit) : amount(l.used) + (l.name === "held log" ? ", no limit" : ", and no room");
    const full = l.time_to_full_ns > 0 ? "full in " + elapsed(l.time_to_full_ns) : "";
    row.append(el("span", "", l.name), bar, el("span", "num", percent(l.share)), el("span", "of", of), el("span", "eta", full), el("span", "state", words));
    return row;
  }));
}

function showBackups(list) {
  $("backups-panel").hidden = list.length === 0;
  $("backups").replaceChildren(...list.map((b) => {
    const box = el("div", "backup"), head = el("div", "row"), foot = el("p", "small");
    const name = el("span");
    name.append(el("strong", "", (b.label || "backup") + " "), (b.incremental ? "incremental" : "full") + " " + b.id + ", by " + b.owner);
    const left = b.time_left_ns > 0 ? elapsed(b.time_left_ns) + " left" : "";
    head.append(name, el("strong", "", percent(b.share) + (left ? ", " + left : "")));
    let done = bytes(b.bytes) + (b.total_bytes > 0 ? " of " + bytes(b.total_bytes) : "") + " at " + bytes(b.bytes_per_second) + "/s";
    if (b.rate_limit_bytes_per_second > 0) done += ", held to " + bytes(b.rate_limit_bytes_per_second) + "/s";
    foot.textContent = done + "; running for " + elapsed(b.age_ns) + "; holds originals of " + bytes(b.held_bytes) + "; rung: " + b.rung +
      (b.forecast ? "; " + b.forecast : "");
    box.append(head, gauge("progressbar", "backup " + b.id, b.share, percent(b.share)), foot);
    return box;
  }));
}

function atRisk(v) {
  const r = v.repository;
  if (!r) return ["-", "no repository is watched"];
  if (r.error) return ["?", r.error];
  if (!r.newest) return ["everything", r.backups ? "no backup is sound" : "no backup yet"];
  const newest = r.kind + " " + r.newest + ", " + r.state;
  let safe = Date.parse(r.committed);
  if (r.archived) safe = Math.max(safe, Date.parse(r.archived_until));
  const last = Date.parse(v.last_commit), now = Math.max(Date.parse(v.time), last); // commits do not go back with a clock
  return [last > safe ? "last " + elapsed((now - safe) * 1e6) : "nothing", "newest: " + newest];
}

function show(v) {
  $("dir").textContent = v.dir || "Spillway";
  document.title = (v.dir ? v.dir.split("/").pop() + " - " : "") + "Spillway";
  $("clock").textContent = clock(v.time);
  const mode = $("mode"), bad = v.error ? "not answering" : v.failed ? "failed" : v.quiet ? "quiet" : "";
  mode.textContent = bad || v.mode;
  mode.className = "badge " + (bad ? "bad" : "good");
  const alert = v.error ? "The database does not answer since " + clock(v.since) + ": " + v.error : v.failed || "";
  $("alert").hidden = !alert;
  $("alert").textContent = alert;
  const w = v.writer;
  $("commits").textContent = w.span_ns > 0 ? count(w.commits_per_second) + "/s" : "-";
  $("lsn").textContent = "LSN " + v.newest_lsn.toLocaleString("en") + "; " + bytes(v.file_bytes) + " in the file";
  $("p99").textContent = w.latency_p99_ns > 0 ? elapsed(w.latency_p99_ns) : "-";
  $("latency").textContent = w.latency_p99_ns > 0 ? "99 % take less; half less than " + elapsed(w.latency_p50_ns) + "; longest " + elapsed(w.latency_max_ns) : "none was timed lately";
  const s = v.snapshots;
  $("readers").textContent = s.readers + (s.readers === 1 ? " reader" : " readers");
  $("held").textContent = "oldest for " + elapsed(s.oldest_age_ns) + "; originals of " + bytes(s.held_bytes) + " are kept";
  [$("risk").textContent, $("repo").textContent] = atRisk(v);
  showLevels(v.levels || []);
  showBackups(v.backups || []);
  const events = (v.events || []).slice().reverse().map((e) => {
    const li = el("li", "event " + e.severity);
    li.append(el("span", "", clock(e.time)), e.text);
    return li;
  });
  $("events").replaceChildren(...(events.length ? events : [el("li", "nothing", "Nothing happened yet.")]));
}

// nice is a round number at or above n.
function nice(n) {
  if (!(n > 0)) return 1;
  const p = Math.pow(10, Math.floor(Math.log10(n)));
  for (const m of [1, 2, 2.5, 5, 10]) if (m * p >= n) return m * p;
  return 10 * p;
}

const short = (n) => n >= 1e6 ? +(n / 1e6).toPrecision(3) + " M" : n >= 1e4 ? +(n / 1e3).toPrecision(3) + " k" : String(+n.toPrecision(3));

// plot draws curves over time: series are {name, values, key}.
function plot(id, times, series, most) {
  const box = $(id), width = Math.max(box.clientWidth, 120), height = 170;
  const left = 42, right = 6, top = 8, bottom = 20, w = width - left - right, h = height - top - bottom;
  const known = series.some((s) => s.values.some((x) => x !== null));
  if (!known || times.length < 2) { box.replaceChildren(el("p", "nothing", "Nothing to draw yet.")); return; }
  const max = most || nice(Math.max(...series.flatMap((s) => s.values.map((x) => x || 0))));
  const t0 = times[0], t1 = times[times.length - 1];
  const x = (t) => left + (t - t0) / (t1 - t0) * w, y = (v) => top + h - Math.min(v / max, 1.02) * h;
  const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe(series)});
  for (let i = 0; i <= 4; i += 2) {
    const v = max * i / 4;
    picture.append(svg("line", {class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v)}),
      svg("text", {x: left - 6, y: y(v) + 4, "text-anchor": "end"}, short(v)));
  }
  for (const [t, anchor] of [[t0, "start"], [(t0 + t1) / 2, "middle"], [t1, "end"]])
    picture.append(svg("text", {x: x(t), y: height - 4, "text-anchor": anchor}, clock(t).slice(0, t1 - t0 < 6e5 ? 8 : 5)));
  for (const s of series) {
    let d = "", open = false, from = 0, area = "";
    const close = (i) => { if (open) area += `L${x(times[i]).toFixed(1)} ${y(0)}L${x(times[from]).toFixed(1)} ${y(0)}Z`; open = false; };
    s.values.forEach((v, i) => {
      if (v === null) { close(i - 1); return; }
      const at = (open ? "L" : "M") + x(times[i]).toFixed(1) + " " + y(v).toFixed(1);
      if (!open) from = i;
      open = true; d += at; area += at;
    });
    close(s.values.length - 1);
    if (series.length === 1) picture.append(svg("path", {class: "area s" + s.key, d: area}));
    picture.append(svg("path", {class: "s" + s.key, d: d}));
  }
  box.replaceChildren(picture);
  hover(box, picture, times, series, x, {left, w, t0, t1, top, h});
}

function describe(series) {
  return series.map((s) => {
    const last = s.values.filter((v) => v !== null).pop();
    return s.name + ": now " + (last === undefined ? "unknown" : short(last));
  }).join("; ");
}

// hover shows the values under the pointer.
function hover(box, picture, times, series, x, g) {
  const cross = svg("line", {class: "cross", y1: g.top, y2: g.top + g.h, visibility: "hidden"}), tip = el("div", "tip");
  tip.hidden = true;
  picture.append(cross);
  box.append(tip);
  box.onpointermove = (e) => {
    const px = e.clientX - box.getBoundingClientRect().left, t = g.t0 + (px - g.left) / g.w * (g.t1 - g.t0);
    let i = times.findIndex((at) => at >= t);
    if (i < 0) i = times.length - 1;
    const at = x(times[i]);
    cross.setAttribute("x1", at); cross.setAttribute("x2", at); cross.setAttribute("visibility", "visible");
    tip.replaceChildren(el("div", "", clock(times[i])), ...series.filter((s) => s.values[i] !== null).map((s) => el("div", "key k" + s.key, s.name + " " + short(s.values[i]))));
    tip.hidden = false;
    tip.style.left = (at > g.left + g.w / 2 ? at - tip.offsetWidth - 10 : at + 10) + "px";
  };
  box.onpointerleave = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
}

function showCurves(c) {
  const scaled = (list, f) => (list || []).map((v) => v === null ? null : v * f);
  plot("plot-commits", c.t, [{name: "commits/s", values: c.commits, key: 0}]);
  plot("plot-latency", c.t, [{name: "99 %", values: c.p99_ms, key: 0}, {name: "50 %", values: c.p50_ms, key: 1}]);
  const names = c.level_names || [];
  plot("plot-levels", c.t, names.map((n, i) => ({name: n, values: scaled(c.levels[n], 100), key: i % 8})), 100);
  $("level-keys").replaceChildren(...names.map((n, i) => el("span", "key k" + i % 8, n)));
  plot("plot-backups", c.t, [{name: "MiB/s", values: scaled(c.backup_bytes_per_second, 1 / 1048576), key: 0}]);
}

async function get(path) {
  const r = await fetch(path, {cache: "no-store", credentials: "same-origin"});
  if (!r.ok) throw new Error(r.status === 401 ? "the token is another one now: open the address that was printed" : "the dashboard says " + r.status);
  return r.json();
}

function lost(err) {
  $("alert").hidden = false;
  $("alert").textContent = "The dashboard does not answer: " + err.message;
  $("mode").textContent = "lost";
  $("mode").className = "badge bad";
}

async function refreshState() {
  try {
    const v = await get("state.json");
    if (v) show(v);
  } catch (err) { lost(err); }
}

async function refreshCurves() {
  try { showCurves(await get("history.json?range=" + range)); } catch (err) { lost(err); }
}

function choose(which) {
  range = which;
  for (const r of ["recent", "hours"]) $("range-" + r).setAttribute("aria-pressed", String(r === which));
  refreshCurves();
}

$("range-recent").addEventListener("click", () => choose("recent"));
$("range-hours").addEventListener("click", () => choose("hours"));
addEventListener("resize", refreshCurves);
refreshState();
refreshCurves();
setInterval(refreshState, 2000);
setInterval(refreshCurves, 5000);
