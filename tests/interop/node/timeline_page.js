"use strict";
// Runs the scripts of a timeline as a browser would, on elements that only remember what was done with them:
//     node timeline_page.js PAGE.html
// Prints as JSON the words on the canvas, and what a mouse is told, in several views.

const fs = require("fs");
const vm = require("vm");

const page = fs.readFileSync(process.argv[2], "utf8");
const [data, script] = [...page.matchAll(/<script[^>]*>\n([^]*?)\n<\/script>/g)].map((found) => found[1]);

let written = [], pending = [];
const paint = new Proxy({}, {
  get: (own, name) => {
    if (name in own) return own[name];
    if (name === "measureText") return (words) => ({ width: 6 * String(words).length });
    if (name === "fillText") return (words, x, y) => { if (![x, y].every(Number.isFinite)) throw new Error(`${words} at ${x}, ${y}`); written.push(String(words)); };
    if (name === "fillRect") return (...numbers) => { if (!numbers.every(Number.isFinite)) throw new Error(`a rectangle ${numbers}`); };
    return () => {};
  },
});
const element = (id) => ({
  id, style: {}, textContent: id === "run" ? data : "", heard: {}, clientWidth: 1200, clientHeight: 700,
  offsetWidth: 200, offsetHeight: 40, hidden: false, checked: true,
  getContext: () => paint, getBoundingClientRect: () => ({ left: 0, top: 0 }), setPointerCapture() {},
  addEventListener(name, call) { this.heard[name] = call; },
  replaceChildren() { this.children = []; }, append(...more) { (this.children ||= []).push(...more); },
  querySelector() { return null; }, scrollIntoView() {},
});
const elements = {};
const find = (id) => (elements[id] ||= element(id));
const world = {
  document: {
    documentElement: {}, body: element("body"), getElementById: find, querySelector: find, createElement: element,
    querySelectorAll: () => [], addEventListener() {},
  },
  getComputedStyle: () => ({ getPropertyValue: () => "#123456" }),
  matchMedia: () => ({ addEventListener() {} }),
  ResizeObserver: class { observe() {} },
  requestAnimationFrame: (call) => pending.push(call),
  addEventListener() {}, location: { hash: "" }, devicePixelRatio: 1,
  atob, Blob, Response, DecompressionStream, Uint8Array, Float64Array, Uint32Array, setTimeout, console,
};
world.window = world;

function frame() {
  written = [];
  for (const call of pending.splice(0)) call();
  return written;
}

async function main() {
  vm.createContext(world);
  const ask = (words) => vm.runInContext(words, world);
  await vm.runInContext(script, world);
  const found = { first: frame() };
  ask("show(0, run.end)");
  found.whole = frame();
  const canvas = find("canvas").heard;
  const [x, y] = ask("(() => { const lane = run.clients[0], span = lane.spans.find((one) => one[2] === 'playing');" +
    " return [toX((span[0] + span[1]) / 2), rows.places.get(lane.number)[0] + 1]; })()");
  canvas.pointermove({ clientX: x, clientY: y });
  found.told = find("tip").textContent;
  canvas.pointerdown({ clientX: x, clientY: y, pointerId: 1 });
  canvas.pointerup({});
  found.kept = find("#lines pre").children.filter((line) => line.textContent).map((line) => line.textContent);
  for (let turns = 0; turns < 12; turns++) {
    canvas.wheel({ clientX: x, clientY: y, deltaX: 0, deltaY: -400, preventDefault() {} });
    frame();
  }
  found.span = ask("until - from");
  ask("show(0, run.end)");
  find("filter").heard.input({ target: { value: "1, 3-4" } });
  found.filtered = frame();
  canvas.pointermove({ clientX: 400, clientY: 110 });
  found.farm = find("tip").textContent;
  console.log(JSON.stringify(found));
}

main();
