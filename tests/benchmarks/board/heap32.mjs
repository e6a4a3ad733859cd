// SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
// SPDX-License-Identifier: MIT
//
// node heap32.mjs micropython.mjs plan.json
//
// Runs the steps of the plan, each a piece of Python, on MicroPython for WebAssembly, which is a
// 32-bit machine, and prints as JSON, for before the first and after each:
//   used    bytes of heap after gc.collect()
//   high    bytes of heap before it
//   grew    whether the heap was too small: this MicroPython never collects while code runs, it
//           makes its heap larger instead
//   result  the number or the text that the step left in `result`, or null
// Plan: {"folders": {folder of the guest: folder of the host}, "steps": [Python, ...],
//   "heap": bytes, "stack": bytes for calls of Python functions}

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [runtime, planPath] = process.argv.slice(2);
const { loadMicroPython } = await import(pathToFileURL(runtime));
const plan = JSON.parse(fs.readFileSync(planPath, "utf8"));
const board = await loadMicroPython({
  heapsize: plan.heap,
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

function run(step) {
  board.runPython(`result = None\n${step}\nhigh = gc.mem_alloc()\nsize = high + gc.mem_free()`);
  const figures = {
    high: board.globals.get("high"),
    grew: board.globals.get("size") > size,
    result: board.globals.get("result"),
  };
  board.runPython("gc.collect()"); // takes effect when no code runs
  board.runPython("high = gc.mem_alloc()");
  return { used: board.globals.get("high"), ...figures };
}

for (const [guest, host] of Object.entries(plan.folders)) copy(host, guest);
const folders = JSON.stringify(Object.keys(plan.folders));
board.runPython("import gc, sys\nhigh = result = None\nsize = gc.mem_alloc() + gc.mem_free()");
const size = board.globals.get("size");
const steps = [`sys.path[:0] = ${folders}`, ...plan.steps];
try {
  console.log(JSON.stringify(steps.map(run)));
} catch (error) {
  console.error(error.message); // all else that node prints is the interpreter, in one line
  process.exit(1);
}
