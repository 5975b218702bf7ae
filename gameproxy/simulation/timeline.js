"use strict";
// Draws what timeline.py has put into the page: lanes, lines of the trace, the farm. All times are microseconds.

const LABELS = 148;          // pixels for the lanes' names
const OVERVIEW = 20, AXIS = 20, FAULTS = 50, FARM = 64, GAP = 6;
const ROW_MAX = 22, CLIENT_MAX = 30, ROW_MIN = 3, ROW_LEAST = 0.4;
const ARROWS_MAX = 800;      // more are not drawn: nothing could be seen
const TICKS_MAX = 700;       // more lines than this are drawn as how many there are
const GOOD_ENDS = new Set(["left", "ConnectionDone", "ConnectionAborted"]);

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), tip = $("tip"), view = $("view");
const paint = canvas.getContext("2d");
let run, from = 0, until = 1, scroll = 0, mouse = null, kept = null, shown = null, all = false, here = true, ink = {}, rows = null, overview = null, due = false;

async function start() {
  const packed = Uint8Array.from(atob($("run").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  run = await new Response(stream).json();
  run.texts = run.text === "" ? [] : run.text.split("\n");
  let now = 0;
  run.at = Float64Array.from(run.at, (delta) => (now += delta));
  run.lanes = run.lanes.map(([kind, name, spans, steps, capacity], number) =>
    ({ kind, name, spans: spans.sort((a, b) => a[0] - b[0]), steps, capacity, number, lines: [] }));
  run.at.forEach((_, line) => {
    const lane = run.lane[line], client = run.client[line];
    if (lane >= 0) run.lanes[lane].lines.push(line);
    if (client >= 0 && client !== lane) run.lanes[client].lines.push(line);
  });
  run.above = run.lanes.filter((lane) => lane.kind !== "client");
  run.clients = run.lanes.filter((lane) => lane.kind === "client");
  learnColours();
  listen();
  const asked = /^#([\d.]+)-([\d.]+)$/.exec(location.hash), busy = busyPart();
  if (asked) show(asked[1] * 1e6, asked[2] * 1e6);
  // Most runs end in a long rest: it is not what one wants to see first.
  else if (busy[1] < 0.7 * run.end) show(...busy);
  else show(0, run.end);
}

// What is where

function busyPart() {
  const ends = run.lanes.flatMap((lane) => lane.kind === "client" ? lane.spans.map((span) => span[1]) : []);
  let last = 0;
  for (const end of ends) if (end > last) last = end;
  for (const [at] of run.faults) if (at > last) last = at;
  return [0, Math.max(1000, Math.min(run.end, last * 1.04))];
}

function show(begin, end) {
  const span = Math.min(Math.max(end - begin, 20), run.end * 1.04);
  from = Math.min(Math.max(begin, -0.02 * run.end), 1.02 * run.end - span);
  until = from + span;
  redraw();
}

function lay() {
  const width = view.clientWidth, height = view.clientHeight;
  const top = OVERVIEW + AXIS + FAULTS;
  const clients = run.clients.filter((lane) => (shown === null || shown.has(lane.number)) && (!here || isHere(lane)));
  const servers = run.above.length;
  const row = Math.min(ROW_MAX, Math.max(1.5, (height * 0.34) / Math.max(1, servers)));
  const places = new Map();
  let y = top + FARM + GAP;
  for (const lane of run.above) {
    places.set(lane.number, [y, row]);
    y += row;
  }
  const begin = y + GAP, room = Math.max(40, height - begin);
  const tall = Math.min(CLIENT_MAX, Math.max(all ? ROW_LEAST : ROW_MIN, room / Math.max(1, clients.length)));
  const most = Math.max(0, clients.length * tall - room);
  scroll = Math.min(Math.max(0, scroll), most);
  clients.forEach((lane, index) => places.set(lane.number, [begin + index * tall - scroll, tall]));
  rows = { width, height, top, begin, room, clients, places, most, farm: top };
}

const isHere = (lane) => lane.spans.some((span) => span[1] >= from && span[0] <= until);
const toX = (at) => LABELS + ((at - from) / (until - from)) * (rows.width - LABELS);
const toTime = (x) => from + ((x - LABELS) / (rows.width - LABELS)) * (until - from);
const isSeen = (lane) => {
  const place = rows.places.get(lane.number);
  if (place === undefined) return false;
  return lane.kind !== "client" || (place[0] + place[1] > rows.begin && place[0] < rows.height);
};
const middle = (number) => {
  const place = rows.places.get(number);
  return place === undefined ? null : place[0] + place[1] / 2;
};

// The first index whose value, of those in order, is not below something.
function search(count, value, of) {
  let low = 0, high = count;
  while (low < high) {
    const half = (low + high) >> 1;
    if (of(half) < value) low = half + 1; else high = half;
  }
  return low;
}
const firstLine = (at) => search(run.at.length, at, (line) => run.at[line]);

// Words

function seconds(at, step) {
  const places = step >= 1e6 ? 0 : step >= 1e5 ? 1 : step >= 1e4 ? 2 : step >= 1e3 ? 3 : 6;
  return (at / 1e6).toFixed(places) + " s";
}
const lineText = (line) => `${(run.at[line] / 1e6).toFixed(6).padStart(11)}  ${run.texts[line]}`;

function laneAt(y) {
  if (rows === null) return null;
  const lanes = y >= rows.begin ? rows.clients : run.above;
  return lanes.find((lane) => {
    const [top, tall] = rows.places.get(lane.number);
    return y >= top && y < top + tall;
  }) || null;
}

function told(x, y) {
  const at = toTime(x), near = Math.abs(toTime(x + 4) - at);
  if (x < LABELS || y < OVERVIEW) return "";
  if (y < rows.farm) {
    const found = run.faults.filter((fault) => Math.abs(fault[0] - at) < near)
      .map((fault) => `${seconds(fault[0], 1)}  ${fault[1]}`);
    for (const [begin, end, what] of run.troubles)
      if (begin <= at && at <= end) found.push(`${what}, ${seconds(begin, 1000)} to ${seconds(end, 1000)}`);
    if (run.failure !== null && Math.abs(run.failure[0] - at) < near) found.unshift("FAILED: " + run.failure[1]);
    return found.join("\n");
  }
  if (y < rows.farm + FARM) {
    const step = run.farm[search(run.farm.length, at, (index) => run.farm[index][0]) - 1];
    return step ? `${seconds(at, 1000)}: ${step[1]} of ${step[2]} slots taken, ${step[3]} clients wait` : "";
  }
  const lane = laneAt(y);
  if (lane === null) return "";
  const name = lane.kind === "client" ? "client " + lane.name : lane.name;
  const said = lane.spans.filter((span) => span[0] <= at + (span[2] === "gone" ? near : 0) && at <= span[1] + (span[2] === "gone" ? near : 0))
    .map((span) => `${name}: ${span[2]}${span[3] ? " (" + span[3] + ")" : ""}, ${seconds(span[0], 1000)}` +
      (span[1] > span[0] ? ` to ${seconds(span[1], 1000)}` : ""));
  if (lane.capacity) {
    const step = lane.steps[search(lane.steps.length, at, (index) => lane.steps[index][0]) - 1];
    said.push(`${step ? step[1] : 0} of ${lane.capacity} slots taken`);
  }
  const lines = linesNear(lane, at, near);
  if (!said.length) said.push(name);
  for (const line of lines.slice(0, 8)) said.push(lineText(line));
  if (lines.length > 8) said.push(`… and ${lines.length - 8} lines more`);
  return said.join("\n");
}

function linesNear(lane, at, near) {
  const lines = lane.lines, found = [];
  for (let index = search(lines.length, at - near, (i) => run.at[lines[i]]); index < lines.length; index++) {
    if (run.at[lines[index]] > at + near) break;
    found.push(lines[index]);
  }
  return found;
}

// Hands

function listen() {
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  let held = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x } = place(event);
    if (event.shiftKey || x < LABELS) scroll += event.deltaY || event.deltaX;
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX);
    else zoom(Math.exp(event.deltaY * 0.0016), x);
    point();
    redraw();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    held = { ...place(event), moved: false };
    canvas.setPointerCapture(event.pointerId);
    if (held.y < OVERVIEW) jump(held.x);
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    mouse = now;
    if (held !== null) {
      if (Math.abs(now.x - held.x) + Math.abs(now.y - held.y) > 3) held.moved = true;
      if (held.y < OVERVIEW) jump(now.x);
      else if (held.moved) {
        move(held.x - now.x);
        scroll += held.y - now.y;
        held.x = now.x;
        held.y = Math.max(now.y, OVERVIEW);
      }
    }
    point();
    redraw();
  });
  canvas.addEventListener("pointerup", () => {
    if (held !== null && !held.moved && held.y >= OVERVIEW) keep(held.x, held.y);
    held = null;
  });
  canvas.addEventListener("pointerleave", () => { mouse = null; tip.hidden = true; redraw(); });
  canvas.addEventListener("dblclick", (event) => { zoom(0.25, place(event).x); });
  addEventListener("resize", redraw);
  new ResizeObserver(redraw).observe(view);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { learnColours(); redraw(); });
  document.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT") return;
    const half = LABELS + (rows.width - LABELS) / 2;
    const keys = {
      "+": () => zoom(0.5, half), "=": () => zoom(0.5, half), "-": () => zoom(2, half), "0": () => show(0, run.end),
      ArrowLeft: () => move(-120), ArrowRight: () => move(120), Escape: shut,
      ArrowUp: () => { scroll -= 60; redraw(); }, ArrowDown: () => { scroll += 60; redraw(); },
    };
    if (keys[event.key] && !event.ctrlKey && !event.metaKey) { keys[event.key](); event.preventDefault(); }
  });
  $("closer").onclick = () => zoom(0.5, LABELS + (rows.width - LABELS) / 2);
  $("farther").onclick = () => zoom(2, LABELS + (rows.width - LABELS) / 2);
  $("whole").onclick = () => show(0, run.end);
  $("all").onclick = () => { all = !all; scroll = 0; $("all").textContent = all ? "taller rows" : "all clients"; redraw(); };
  $("here").onchange = () => { here = $("here").checked; scroll = 0; redraw(); };
  $("busy").onclick = () => show(...busyPart());
  $("shut").onclick = shut;
  $("filter").addEventListener("input", (event) => { shown = chosen(event.target.value); scroll = 0; redraw(); });
  document.querySelectorAll("[data-at]").forEach((button) => {
    button.onclick = () => {
      const at = Number(button.dataset.at), half = Math.min((until - from) / 2, run.end / 20);
      show(at - half, at + half);
    };
  });
  document.querySelectorAll("[data-copy]").forEach((button) => {
    button.onclick = async () => {
      await copy(button.previousElementSibling.textContent);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    };
  });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // not everywhere may a file do that
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function zoom(factor, x) {
  const at = toTime(Math.max(LABELS, x)), span = Math.max(20, (until - from) * factor);
  const part = (at - from) / (until - from);
  show(at - part * span, at + (1 - part) * span);
}

function move(pixels) {
  const by = (pixels / (rows.width - LABELS)) * (until - from);
  show(from + by, until + by);
}

function jump(x) {
  const half = (until - from) / 2, at = ((x - LABELS) / (rows.width - LABELS)) * run.end;
  show(at - half, at + half);
}

function point() {
  const words = mouse === null || rows === null ? "" : told(mouse.x, mouse.y);
  tip.hidden = words === "";
  tip.textContent = words;
  if (words === "") return;
  const wide = tip.offsetWidth, tall = tip.offsetHeight;
  tip.style.left = `${Math.max(4, mouse.x + 16 + wide > rows.width ? mouse.x - wide - 12 : mouse.x + 16)}px`;
  tip.style.top = `${Math.max(4, mouse.y + 16 + tall > rows.height ? mouse.y - tall - 10 : mouse.y + 16)}px`;
}

// The lines of a lane around a moment, below the picture.
function keep(x, y) {
  const lane = laneAt(y);
  if (lane === null || x < 0) return shut();
  kept = lane;
  const lines = lane.lines, at = toTime(Math.max(x, LABELS));
  const middle = search(lines.length, at, (index) => run.at[lines[index]]);
  const pre = document.querySelector("#lines pre");
  pre.replaceChildren();
  for (let index = Math.max(0, middle - 200); index < Math.min(lines.length, middle + 200); index++) {
    const line = document.createElement(index === middle ? "mark" : "span");
    line.textContent = lineText(lines[index]);
    pre.append(line, "\n");
  }
  $("lines").hidden = false;
  const marked = pre.querySelector("mark");
  if (marked) marked.scrollIntoView({ block: "center" });
  redraw();
}

function shut() {
  kept = null;
  $("lines").hidden = true;
  redraw();
}

// The clients that are named in words as "7, 12-20"; null: all.
function chosen(words) {
  const parts = words.split(/[\s,]+/).filter((part) => /^\d+(-\d+)?$/.test(part));
  if (!parts.length) return null;
  const ranges = parts.map((part) => part.split("-").map(Number));
  const found = run.clients.filter((lane) => ranges.some(([low, high = low]) => lane.name >= low && lane.name <= high));
  return new Set(found.map((lane) => lane.number));
}

start();
