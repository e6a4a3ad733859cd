// SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
// SPDX-License-Identifier: MIT
//
// node heap32.mjs micropython.mjs plan.json
//
// Runs the steps of the plan, each a piece of Python, on MicroPython for WebAssembly, which is a
// 32-bit machine, and prints the bytes of heap in use before the first and after each as JSON.
// A step may leave a number or a text in `result`, which then stands instead of the heap.
// Plan: {"folders": {folder of the guest: folder of the host}, "steps": [Python, ...],
//   "stack": bytes for calls of Python functions}

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [runtime, planPath] = process.argv.slice(2);
const { loadMicroPython } = await import(pathToFileURL(runtime));
const plan = JSON.parse(fs.readFileSync(planPath, "utf8"));
const board = await loadMicroPython({
  pystack: plan.stack / 4, // in words
  stdout: (line) => console.error(line),
  linebuffer: true,
});

function copy(from, to) {
  if (!fs.statSync(from).isDirectory()) {
    board.FS.writeFile(to, fs.readFileSync(from));
    return;
  }
  board.FS.mkdir(to);
  for (const name of fs.readdirSync(from)) {
    if (name !== "__pycache__") copy(path.join(from, name), `${to}/${name}`);
  }
}

function heap() {
  board.runPython("gc.collect()"); // inside of running code it would not collect
  board.runPython("result = gc.mem_alloc() if result is None else result");
  const bytes = board.globals.get("result");
  board.runPython("result = None");
  return bytes;
}

for (const [guest, host] of Object.entries(plan.folders)) copy(host, guest);
const folders = JSON.stringify(Object.keys(plan.folders));
board.runPython(`import gc, sys\nsys.path[:0] = ${folders}\nresult = None`);
const figures = [heap()];
for (const step of plan.steps) {
  board.runPython(step);
  figures.push(heap());
}
console.log(JSON.stringify(figures));
