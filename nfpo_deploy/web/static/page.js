"use strict";
// Ten times a second this page says what its user holds, with the number of the newest status that it has seen. When
// that stops - tab closed, hidden or frozen, link cut - the robot stops. Nothing here decides about safety.

const BEAT_MS = 100, LOST_MS = 1000, HISTORY = 300, LOG_LINES = 5;
const AXES = ["vx", "vy", "wz"];
const KEYS = { w: [1, 0, 0], s: [-1, 0, 0], q: [0, 1, 0], e: [0, -1, 0], a: [0, 0, 1], d: [0, 0, -1],
  arrowup: [1, 0, 0], arrowdown: [-1, 0, 0], arrowleft: [0, 0, 1], arrowright: [0, 0, -1] };

const $ = (id) => document.getElementById(id);
const state = { socket: null, echo: -1, heard: 0, number: 0, status: {}, pads: { move: null, turn: null }, keys: new Set(),
  asked: [[], [], []], measured: [[], [], []], view: null };

// What is held. A pad or key counts from the press to the release, wherever the pointer goes.

function stick() {
  const { move, turn } = state.pads;
  if (move || turn) return [move ? -move[1] : 0, move ? -move[0] : 0, turn ? -turn[0] : 0];
  if (!state.keys.size) return null;
  const sum = [0, 0, 0];
  for (const key of state.keys) KEYS[key].forEach((value, axis) => { sum[axis] += value; });
  return sum.map((value) => Math.max(-1, Math.min(1, value)));
}

function velocity(sticks) {
  const scale = Number($("speed").value) / 100, speeds = state.status.speeds || {};
  return sticks.map((value, axis) => {
    const [low, high] = speeds[AXES[axis]] || [0, 0];
    return scale * (value >= 0 ? value * high : -value * low);
  });
}

function release() {
  state.pads.move = state.pads.turn = null;
  state.keys.clear();
  drawPads();
}

function send(message) {
  if (state.socket && state.socket.readyState === WebSocket.OPEN) state.socket.send(JSON.stringify(message));
}

function beat() {
  document.body.classList.toggle("lost", performance.now() - state.heard > LOST_MS);
  if (document.hidden || state.echo < 0) return;
  const sticks = stick();
  send({ beat: state.echo, held: sticks !== null, velocity: velocity(sticks || [0, 0, 0]) });
}

function request(name) {
  state.number += 1;
  send({ request: name, number: state.number });
}

function emergencyStop() {
  release();
  $("estop").classList.add("asked");
  request("estop");
  // By another way as well, should the channel be stuck.
  fetch("/estop", { method: "POST" }).catch(() => {});
}

// The channel.

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/control`);
  state.socket = socket;
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.answer) return log(message);
    state.heard = performance.now();
    state.echo = message.status;
    state.status = message;
    show(message);
  };
  socket.onclose = () => {
    state.echo = -1;
    release();
    setTimeout(connect, 500);
  };
}

// What is shown. Texts go in as text, never as markup.

function log(message) {
  const item = document.createElement("li");
  item.className = message.accepted ? "accepted" : "refused";
  item.textContent = `${message.answer}: ${message.message}`;
  $("log").prepend(item);
  while ($("log").children.length > LOG_LINES) $("log").lastChild.remove();
}

function number(value, digits, unit) {
  return value === null || value === undefined ? "–" : `${value.toFixed(digits)} ${unit}`;
}

function show(status) {
  const mode = status.mode || "";
  if (status.view !== state.view) {
    state.view = status.view;
    if (status.view) $("view").src = status.view;
  }
  $("mode").textContent = mode || "NO WATCHDOG";
  $("mode").dataset.mode = mode;
  $("reason").textContent = status.reason || "";
  $("driver").textContent = !status.listening ? "the graph takes no web driver" : status.driver ? `${status.driver} drives` : "";
  $("estop").classList.toggle("asked", Boolean(status.stopping));
  $("estop").textContent = status.stopping ? "STOPPING …" : "E-STOP";
  const bridge = status.bridge || {};
  facts([
    ["battery", status.battery], ["hottest motor", status.temperature],
    ["armed", status.armed ? "yes" : "no"], ["gate", [bridge.phase, bridge.reason].filter(Boolean).join(": ")],
    ["bridge loop", `${number(bridge.loop_rate, 0, "Hz")}, jitter p99 ${number(bridge.loop_jitter_p99_ms, 2, "ms")}`],
    ["latency", `p50 ${number(bridge.latency_p50_ms, 1, "ms")}, p99 ${number(bridge.latency_p99_ms, 1, "ms")}`],
    ["lost, corrupt, overruns", [bridge.lowstate_lost, bridge.lowstate_crc_errors, bridge.loop_overruns].join(", ")],
    ["guards", `${bridge.guards_alive} of ${bridge.guards_expected}${bridge.guard_active ? ", DAMPING" : ""}`],
    ["foreign commands", [bridge.foreign_lowcmd, bridge.network_problem].filter(Boolean).join(", ") || "none"],
    ["height", number(status.height, 2, "m")],
  ]);
  list($("problems"), [
    ...(status.causes || []).slice(1).map((cause) => ({ level: "error", text: `then ${cause}` })),
    ...(status.problems || []).map((row) => ({ level: row.level, text: `${row.name}: ${row.message}` })),
  ]);
  remember(state.asked, status.asked);
  remember(state.measured, status.measured);
  for (let axis = 0; axis < 3; axis += 1) plot(axis);
}

function facts(rows) {
  const body = document.createElement("tbody");
  for (const [name, value] of rows) {
    const row = body.insertRow();
    row.insertCell().textContent = name;
    row.insertCell().textContent = value || "–";
  }
  $("facts").replaceChildren(body);
}

function list(element, items) {
  element.replaceChildren(...items.map(({ level, text }) => {
    const item = document.createElement("li");
    item.className = level;
    item.textContent = text;
    return item;
  }));
}

function remember(history, values) {
  for (let axis = 0; axis < 3; axis += 1) {
    history[axis].push(values ? values[axis] : null);
    if (history[axis].length > HISTORY) history[axis].shift();
  }
}

function plot(axis) {
  const canvas = $(`plot${axis}`), ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const range = (state.status.speeds || {})[AXES[axis]] || [-1, 1];
  const limit = 1.25 * Math.max(-range[0], range[1]), pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.strokeStyle = "#303a4a";
  pen.beginPath();
  pen.moveTo(0, height / 2);
  pen.lineTo(width, height / 2);
  pen.stroke();
  for (const [history, colour] of [[state.asked[axis], "#ffb347"], [state.measured[axis], "#4da3ff"]]) {
    pen.strokeStyle = colour;
    pen.beginPath();
    let drawing = false;
    history.forEach((value, index) => {
      if (value === null) { drawing = false; return; }
      const x = width * (1 - (history.length - 1 - index) / (HISTORY - 1));
      const y = height / 2 * (1 - Math.max(-1, Math.min(1, value / limit)));
      if (drawing) pen.lineTo(x, y); else pen.moveTo(x, y);
      drawing = true;
    });
    pen.stroke();
  }
}

// Pads, keys and buttons.

function drawPads() {
  for (const id of ["move", "turn"]) {
    const at = state.pads[id], pad = $(id);
    pad.classList.toggle("held", at !== null);
    pad.querySelector(".knob").style.transform = at ? `translate(${at[0] * 60}px, ${at[1] * 50}px)` : "";
  }
}

function padMoved(id, event) {
  const box = $(id).getBoundingClientRect(), bound = (value) => Math.max(-1, Math.min(1, value));
  state.pads[id] = [bound((event.clientX - box.left - box.width / 2) / 60), bound((event.clientY - box.top - box.height / 2) / 50)];
  drawPads();
}

for (const id of ["move", "turn"]) {
  const pad = $(id);
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    padMoved(id, event);
  });
  pad.addEventListener("pointermove", (event) => { if (state.pads[id]) padMoved(id, event); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    pad.addEventListener(end, () => { state.pads[id] = null; drawPads(); });
  }
}

addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "escape") emergencyStop();
  else if (key === " ") release();
  else if (key in KEYS) { if (!event.repeat) state.keys.add(key); } else return;
  event.preventDefault();
});
addEventListener("keyup", (event) => state.keys.delete(event.key.toLowerCase()));
// A key that is let go in another window is never told to this one.
addEventListener("blur", release);
document.addEventListener("visibilitychange", release);
for (const button of document.querySelectorAll("[data-request]")) {
  button.addEventListener("click", () => { button.blur(); request(button.dataset.request); });
}
// On the way down: a stop does not wait for the finger to come up.
$("estop").addEventListener("pointerdown", emergencyStop);
$("estop").addEventListener("keydown", (event) => { if (event.key === "Enter") emergencyStop(); });
$("speed").addEventListener("input", () => { $("percent").textContent = `${$("speed").value} %`; });

connect();
setInterval(beat, BEAT_MS);
