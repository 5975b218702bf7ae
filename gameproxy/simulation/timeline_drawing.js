"use strict";
// How timeline.js has the picture drawn.

function redraw() {
  if (!due) { due = true; requestAnimationFrame(draw); }
}

function learnColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["page", "panel", "ink", "quiet", "line", "row", "connecting", "waiting", "playing", "lost",
    "server", "proxy", "database", "fault", "failure", "trouble", "arrow", "tick"])
    ink[name] = style.getPropertyValue("--" + name).trim();
  ink.authenticating = ink.connecting;
}

function draw() {
  due = false;
  lay();
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(rows.width * scale) || canvas.height !== Math.round(rows.height * scale)) {
    canvas.width = Math.round(rows.width * scale);
    canvas.height = Math.round(rows.height * scale);
  }
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  paint.fillStyle = ink.page;
  paint.fillRect(0, 0, rows.width, rows.height);
  paint.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  paint.textBaseline = "middle";
  const hovered = mouse && laneAt(mouse.y);
  inside(OVERVIEW, rows.height, () => { drawGrid(); drawTroubles(); });
  inside(rows.begin, rows.height, () => rows.clients.forEach((lane) => drawLane(lane, lane === hovered)));
  inside(rows.farm + FARM, rows.begin, () => run.above.forEach((lane) => drawLane(lane, lane === hovered)));
  inside(OVERVIEW, rows.height, () => {
    drawLines();
    drawArrows(hovered);
  });
  drawFarm();
  drawAxis();
  drawMarks();
  drawOverview();
  drawNames(hovered);
  drawScrollbar();
}

function inside(top, bottom, work) {
  paint.save();
  paint.beginPath();
  paint.rect(LABELS, top, rows.width - LABELS, bottom - top);
  paint.clip();
  work();
  paint.restore();
}

function drawLane(lane, hovered) {
  if (!isSeen(lane)) return;
  const [y, tall] = rows.places.get(lane.number);
  const gap = tall >= 20 ? 5 : tall >= 12 ? 3 : tall >= 6 ? 1 : tall >= 3 ? 0.5 : 0;
  if (hovered) fill(ink.panel, LABELS, y, rows.width - LABELS, tall);
  else if (tall >= 8) fill(ink.line, LABELS, y + tall - 0.5, rows.width - LABELS, 0.5);
  for (const [begin, end, state, words] of lane.spans) {
    if (end < from || begin > until) continue;
    const left = Math.max(toX(begin), LABELS - 2), right = Math.min(toX(end), rows.width + 2);
    if (state === "gone") {
      if (!GOOD_ENDS.has(words)) drawEnd(left, y + tall / 2, tall);
    } else if (state === "frozen") {
      drawHatched(left, y + gap, right - left, tall - 2 * gap);
    } else if (lane.kind === "client") {
      fill(ink[state], left, y + gap, Math.max(right - left, 1), tall - 2 * gap);
    } else {
      drawBar(lane, state, left, y + gap, Math.max(right - left, 1.5), tall - 2 * gap);
      if (end < run.end * 0.9999 && state !== "starting" && tall >= 3) fill(ink.ink, right - 1.5, y + gap, 1.5, tall - 2 * gap);
    }
  }
}

function drawBar(lane, state, x, y, width, tall) {
  const colour = ink[lane.kind];
  paint.globalAlpha = state === "starting" ? 0.18 : lane.kind === "server" ? 0.28 : 0.4;
  fill(colour, x, y, width, tall);
  paint.globalAlpha = 1;
  if (lane.kind !== "server" || state === "starting" || !lane.capacity) return;
  // How full it is, from below.
  const steps = lane.steps;
  let index = Math.max(0, search(steps.length, toTime(x), (at) => steps[at][0]) - 1);
  for (; index < steps.length && toX(steps[index][0]) < x + width; index++) {
    const left = Math.max(x, toX(steps[index][0]));
    const right = Math.min(x + width, index + 1 < steps.length ? toX(steps[index + 1][0]) : x + width);
    const full = Math.min(1, steps[index][1] / lane.capacity);
    if (full > 0 && right > left) fill(colour, left, y + tall * (1 - full), Math.max(right - left, 0.6), tall * full);
  }
}

function drawEnd(x, y, tall) {
  paint.fillStyle = ink.lost;
  paint.beginPath();
  paint.arc(x, y, Math.max(1.3, Math.min(3.6, tall / 3.2)), 0, 7);
  paint.fill();
}

function drawHatched(x, y, width, tall) {
  paint.save();
  paint.beginPath();
  paint.rect(x, y, width, tall);
  paint.clip();
  fill(ink.page, x, y, width, tall);
  paint.strokeStyle = ink.quiet;
  paint.lineWidth = 1;
  paint.beginPath();
  for (let at = x - tall; at < x + width; at += 5) {
    paint.moveTo(at, y + tall);
    paint.lineTo(at + tall, y);
  }
  paint.stroke();
  paint.restore();
}

function drawTroubles() {
  for (const [begin, end] of run.troubles) {
    if (end < from || begin > until) continue;
    fill(ink.trouble, toX(begin), rows.top - FAULTS, Math.max(1, toX(end) - toX(begin)), rows.height);
  }
}

// Lines: each a tick where there are few, else by their number.
function drawLines() {
  const begin = firstLine(from), end = firstLine(until);
  if (end - begin <= TICKS_MAX) {
    paint.fillStyle = ink.tick;
    for (let line = begin; line < end; line++) {
      const lane = run.lanes[run.lane[line]];
      if (lane === undefined || !isSeen(lane)) continue;
      const [y, tall] = rows.places.get(lane.number);
      if (tall < 5) continue;
      const few = end - begin < 600;
      paint.fillRect(toX(run.at[line]) - 0.5, y + tall * 0.2, few ? 1.4 : 0.8, tall * 0.6);
    }
    return;
  }
  const wide = 2, count = Math.ceil((rows.width - LABELS) / wide);
  for (const lane of run.above) {
    const bins = new Uint32Array(count + 1), [y, tall] = rows.places.get(lane.number);
    if (lane.kind === "server" || tall < 4) continue;  // what is to be seen there is how full it is
    let most = 1;
    const lines = lane.lines;
    for (let at = search(lines.length, from, (index) => run.at[lines[index]]); at < lines.length; at++) {
      const time = run.at[lines[at]];
      if (time >= until) break;
      const bin = Math.floor((toX(time) - LABELS) / wide);
      most = Math.max(most, ++bins[bin]);
    }
    paint.fillStyle = ink[lane.kind];
    bins.forEach((number, bin) => {
      if (!number) return;
      const high = (tall - 4) * Math.max(0.15, Math.log(1 + number) / Math.log(1 + most));
      paint.fillRect(LABELS + bin * wide, y + tall - 2 - high, wide, high);
    });
  }
}

function drawArrows(hovered) {
  const begin = firstLine(from), end = firstLine(until);
  const mine = hovered && hovered.kind === "client" ? hovered.number : kept && kept.kind === "client" ? kept.number : -1;
  const arrows = [];
  for (let line = begin; line < end && arrows.length <= ARROWS_MAX; line++)
    if (run.source[line] >= 0 && isShown(line)) arrows.push(line);
  const few = arrows.length < 220;
  if (arrows.length <= ARROWS_MAX) {
    paint.globalAlpha = few ? 1 : Math.max(0.25, 1 - arrows.length / ARROWS_MAX);
    for (const line of arrows) if (run.client[line] !== mine) drawArrow(line, ink.arrow, few);
    paint.globalAlpha = 1;
  }
  if (mine < 0) return;
  const lines = run.lanes[mine].lines;
  const first = search(lines.length, from, (index) => run.at[lines[index]]);
  for (let at = first; at < lines.length && run.at[lines[at]] < until && at - first < ARROWS_MAX; at++)
    if (run.source[lines[at]] >= 0) drawArrow(lines[at], ink.ink, true);
}

const isShown = (line) => shown === null || shown.has(run.client[line]);

function drawArrow(line, colour, head) {
  const y1 = middle(run.source[line]), y2 = middle(run.lane[line]);
  if (y1 === null || y2 === null) return;
  const x1 = toX(run.at[line] - run.travel[line]), x2 = toX(run.at[line]);
  paint.strokeStyle = paint.fillStyle = colour;
  paint.lineWidth = head ? 1 : 0.7;
  paint.beginPath();
  paint.moveTo(x1, y1);
  paint.lineTo(x2, y2);
  paint.stroke();
  if (!head) return;
  const angle = Math.atan2(y2 - y1, x2 - x1);
  paint.beginPath();
  paint.moveTo(x2, y2);
  paint.lineTo(x2 - 6 * Math.cos(angle - 0.38), y2 - 6 * Math.sin(angle - 0.38));
  paint.lineTo(x2 - 6 * Math.cos(angle + 0.38), y2 - 6 * Math.sin(angle + 0.38));
  paint.fill();
}

function drawFarm() {
  const top = rows.farm + 4, tall = FARM - 8, base = top + tall;
  let most = 1;
  for (const step of run.farm) most = Math.max(most, step[1], step[2], step[3]);
  const high = (value) => base - (value / most) * (tall - 4);
  fill(ink.page, LABELS, rows.farm, rows.width - LABELS, FARM);
  inside(rows.farm, rows.farm + FARM, () => {
    steps(2, ink.quiet, high, base, 0.12, true);
    steps(1, ink.playing, high, base, 0.55, false);
    steps(3, ink.waiting, high, base, 0, true);
  });
  fill(ink.line, LABELS, base, rows.width - LABELS, 1);
  paint.fillStyle = ink.quiet;
  paint.fillText(most, LABELS + 4, top + 7);
}

function steps(column, colour, high, base, alpha, lined) {
  const farm = run.farm;
  const path = () => {
    let last = toX(0);
    paint.beginPath();
    paint.moveTo(last, base);
    let index = Math.max(0, search(farm.length, from, (at) => farm[at][0]) - 1);
    let y = base;
    for (; index < farm.length; index++) {
      const x = toX(farm[index][0]);
      paint.lineTo(x, y);
      y = high(farm[index][column]);
      paint.lineTo(x, y);
      last = x;
      if (farm[index][0] > until) break;
    }
    if (index >= farm.length) paint.lineTo(toX(run.end), y);
    return y;
  };
  if (alpha > 0) {
    path();
    paint.lineTo(Math.min(toX(run.end), rows.width), base);
    paint.closePath();
    paint.globalAlpha = alpha;
    paint.fillStyle = colour;
    paint.fill();
    paint.globalAlpha = 1;
  }
  if (lined || alpha > 0) {
    path();
    paint.strokeStyle = colour;
    paint.lineWidth = 1.2;
    paint.stroke();
  }
}

// Calls something with each moment of the axis that gets a line, and how far they are apart.
function eachMoment(work) {
  const wanted = (until - from) / Math.max(2, (rows.width - LABELS) / 110);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= wanted);
  const last = Math.min(until, run.end * 1.01);
  for (let at = Math.ceil(Math.max(0, from) / step) * step; at <= last; at += step) work(at, step);
}

function drawGrid() {
  eachMoment((at) => fill(ink.line, toX(at), OVERVIEW + AXIS, 0.5, rows.height));
}

function drawAxis() {
  const y = OVERVIEW;
  fill(ink.page, LABELS, y, rows.width - LABELS, AXIS);
  paint.textAlign = "center";
  eachMoment((at, step) => {
    const x = toX(at);
    fill(ink.quiet, x, y + AXIS - 5, 1, 5);
    paint.fillStyle = ink.quiet;
    if (x > LABELS + 18 && x < rows.width - 24) paint.fillText(seconds(at, step), x, y + AXIS / 2 - 1);
  });
  paint.textAlign = "left";
  fill(ink.line, LABELS, y + AXIS, rows.width - LABELS, 1);
}

function drawMarks() {
  const band = rows.top - FAULTS, free = [LABELS, LABELS, LABELS];
  const marks = run.faults.map(([at, what]) => [at, what, ink.fault]);
  if (run.settles !== null) marks.push([run.settles, "settle", ink.quiet]);
  marks.sort((one, other) => one[0] - other[0]);
  inside(OVERVIEW, rows.height, () => {
    for (const [at, , colour] of marks) mark(at, colour, 1, [2, 3]);
    for (const [at, what, colour] of marks) {
      if (at < from || at > until) continue;
      const x = toX(at), wide = paint.measureText(what).width + 12, row = free.findIndex((end) => x >= end);
      if (row < 0) {
        fill(colour, x - 1, rows.top - 5, 2.5, 5);
        continue;
      }
      free[row] = x + wide;
      const y = band + 2 + 16 * row;
      fill(ink.page, x, y, wide, 15);
      fill(colour, x - 1, y, 2.5, 15);
      paint.fillStyle = colour;
      paint.fillText(what, x + 5, y + 8);
    }
    if (run.failure !== null) drawFailure(band);
  });
}

function drawFailure(band) {
  const x = toX(run.failure[0]), before = x < LABELS, behind = x > rows.width - 4;
  mark(run.failure[0], ink.failure, 2, []);
  const words = `${before ? "◂ " : ""}FAILED ${seconds(run.failure[0], 1000)}${behind ? " ▸" : ""}`;
  const wide = paint.measureText(words).width + 12;
  const left = before ? LABELS : Math.min(x, rows.width - wide);
  fill(ink.failure, left, band + 33, wide, 17);
  paint.fillStyle = "#fff";
  paint.fillText(words, left + 6, band + 42);
}

function mark(at, colour, width, dash) {
  paint.save();
  paint.globalAlpha = dash.length ? 0.55 : 1;
  paint.strokeStyle = colour;
  paint.lineWidth = width;
  paint.setLineDash(dash);
  paint.beginPath();
  paint.moveTo(toX(at), rows.top - FAULTS);
  paint.lineTo(toX(at), rows.height);
  paint.stroke();
  paint.restore();
}

function drawOverview() {
  const tall = OVERVIEW - 4, width = rows.width - LABELS;
  fill(ink.panel, LABELS, 0, width, tall);
  if (overview === null || overview.width !== width) {
    const bins = new Uint32Array(Math.ceil(width) + 1);
    let most = 1;
    for (const at of run.at) most = Math.max(most, ++bins[Math.floor((at / run.end) * width)]);
    overview = { bins, most, width };
  }
  paint.fillStyle = ink.connecting;
  overview.bins.forEach((number, x) => {
    if (!number) return;
    const high = tall * (0.15 + 0.85 * Math.log(1 + number) / Math.log(1 + overview.most));
    paint.fillRect(LABELS + x, tall - high, 1, high);
  });
  const place = (at) => LABELS + (at / run.end) * width;
  for (const [at] of run.faults) fill(ink.fault, place(at), 0, 1.5, tall);
  if (run.failure !== null) fill(ink.failure, Math.min(place(run.failure[0]), rows.width - 3), 0, 3, tall);
  paint.strokeStyle = ink.ink;
  paint.lineWidth = 1;
  const left = Math.max(LABELS + 0.5, place(from)), right = Math.min(rows.width - 0.5, place(until));
  paint.strokeRect(left, 0.5, Math.max(2, right - left), tall - 1);
}

function drawNames(hovered) {
  fill(ink.page, 0, 0, LABELS, rows.height);
  fill(ink.line, LABELS - 1, 0, 1, rows.height);
  paint.fillStyle = ink.quiet;
  paint.textAlign = "right";
  const right = LABELS - 10;
  paint.fillText("the whole run", right, OVERVIEW / 2 - 2);
  paint.fillText("faults", right, rows.top - FAULTS / 2);
  const farm = rows.farm + 12;
  paint.fillText("slots there are", right, farm);
  paint.fillStyle = ink.playing;
  paint.fillText("taken", right, farm + 16);
  paint.fillStyle = ink.waiting;
  paint.fillText("clients waiting", right, farm + 32);
  paint.fillStyle = ink.quiet;
  let next = -100;
  for (const lane of [...run.above, ...rows.clients]) {
    const [y, tall] = rows.places.get(lane.number);
    if (lane.kind === "client" && (y < rows.begin - tall / 2 || y > rows.height)) continue;
    if (lane !== hovered && y + tall / 2 < next) continue;
    const name = lane.kind === "client" ? "client " + lane.name : lane.name;
    if (lane === hovered) fill(ink.panel, 0, y + tall / 2 - 8, LABELS - 1, 16);
    paint.fillStyle = lane.kind === "client" ? (lane === kept || lane === hovered ? ink.ink : ink.quiet) : ink[lane.kind];
    paint.fillText(name.length > 21 ? name.slice(0, 20) + "…" : name, right, y + tall / 2);
    next = y + tall / 2 + 13;
  }
  paint.textAlign = "left";
}

function drawScrollbar() {
  if (rows.most <= 0) return;
  const all = rows.most + rows.room, tall = Math.max(24, (rows.room / all) * rows.room);
  paint.globalAlpha = 0.5;
  fill(ink.quiet, rows.width - 6, rows.begin + (scroll / rows.most) * (rows.room - tall), 4, tall);
  paint.globalAlpha = 1;
}

function fill(colour, x, y, width, height) {
  paint.fillStyle = colour;
  paint.fillRect(x, y, width, height);
}
