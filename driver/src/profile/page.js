// The page of a profile.
const TOP = 20;

// What bounds a kernel gives it its colour.
const WALLS = { tiles: "register tiles", vectors: "vectors", cache: "a cache", memory: "memory", other: "nothing that is known" };
const kindOf = (wall) =>
  !wall ? "other" : wall.endsWith("tiles") ? "tiles" : wall === "vectors" ? "vectors" : wall === "memory" ? "memory" : "cache";
const colour = (k) => `var(--${kindOf(k.roof?.wall)})`;

const rowOfStep = new Map();
data.kernels.forEach((k, i) => k.steps.forEach((s) => rowOfStep.set(s, i)));
let chosen = 0;
const redraw = [];

const about = (k) =>
  `${k.name}\n${time(k.call.median)} a call, ${percent(k.share)} of the time` +
  (k.roof ? `\n${percent(k.roof.share)} of its roof (${k.roof.wall})` : "");

function head() {
  $("model").textContent = data.model;
  const sizes = Object.entries(data.sizes).map(([s, n]) => `${s}=${n}`).join(" ");
  $("setting").textContent = [data.target, `${data.threads} thread${data.threads > 1 ? "s" : ""}`, sizes,
    `${data.runs} runs`, data.figures === "measured" ? "measured roofs" : "built-in roofs (brolga machine measures them)"]
    .filter(Boolean).join(" · ");
  const flops = data.kernels.reduce((sum, k) => sum + (k.flops ?? 0), 0);
  facts($("facts"), [
    ["median of a run", time(data.run.median)],
    ["10th to 90th percentile", `${time(data.run.p10)} – ${time(data.run.p90)}`],
    ["operations", count(flops, "FLOP")],
    ["speed", `${count(flops / data.run.median, "FLOP")}/s`],
    ["arena", count(data.arena.bytes, "B")],
    ["a pair of hooks", time(data.hook)],
    ["outside of steps", time(data.outside)],
  ]);
}

// Columns: title, classes, what a kernel has there.
const COLUMNS = [
  ["kernel", "text name", (k) => k.name],
  ["share", "", (k) => percent(k.share)],
  ["calls", "", (k) => digits(k.calls)],
  ["median", "", (k) => time(k.call.median)],
  ["predicted", "wide", (k) => or(k.predicted, (s) => time(s / k.calls))],
  ["p10 – p90", "wide", (k) => `${time(k.call.p10)} – ${time(k.call.p90)}`],
  ["GFLOP/s", "", (k) => or(k.flops_per_second, (x) => digits(x / 1e9))],
  ["GB/s", "", (k) => or(k.bytes_per_second, (x) => digits(x / 1e9))],
  ["roof", "", (k) => or(k.roof, (r) => percent(r.share))],
  ["of", "text", (k) => or(k.roof, (r) => r.wall)],
  ["busy", "wide", (k) => digits(k.busy)],
  ["nodes", "text nodes wide", (k) => k.nodes.join(", ")],
];

function table() {
  $("kernels").tHead.replaceChildren(el("tr", {}, ...COLUMNS.map(([title, c]) => el("th", { class: c, scope: "col" }, title))));
  const body = $("kernels").tBodies[0];
  const longest = Math.max(...data.kernels.map((k) => k.share));
  data.kernels.forEach((k, i) => {
    const tr = el("tr", { tabindex: 0, "aria-selected": false });
    for (const [title, classes, show] of COLUMNS) {
      const td = el("td", { class: classes }, show(k));
      if (title === "share") {
        const part = el("i", { style: `width:${(100 * k.share) / longest}%;background:${colour(k)}` });
        td.append(el("span", { class: "bar", "aria-hidden": true }, part));
      }
      if (classes.includes("name") || classes.includes("nodes")) td.title = td.textContent;
      tr.append(td);
    }
    tr.hidden = i >= TOP;
    onChoose(tr, () => choose(i, true));
    body.append(tr);
  });
  const more = data.kernels.length - TOP;
  $("more").hidden = more <= 0;
  $("more").textContent = `Show ${more} more`;
  $("more").addEventListener("click", () => {
    [...body.rows].forEach((r) => (r.hidden = false));
    $("more").hidden = true;
  });
}

// The functions of a kernel: its own, and those that they refer to.
function functionsOf(k) {
  const byName = new Map(data.listings.map((l) => [l.name, l]));
  const found = data.listings.filter((l) => k.symbol && (l.name === k.symbol || l.name.startsWith(`${k.symbol}_`)));
  found.sort((a, b) => (b.name === k.symbol) - (a.name === k.symbol));
  for (const l of found) {
    for (const name of l.refers) {
      const other = byName.get(name);
      if (other && !found.includes(other)) found.push(other);
    }
  }
  return found;
}

function choose(i, show) {
  chosen = i;
  const k = data.kernels[i];
  [...$("kernels").tBodies[0].rows].forEach((r, n) => r.setAttribute("aria-selected", n === i));
  $("h-detail").textContent = k.name;
  const work = (x, unit) => or(x, (x) => count(x, unit));
  facts($("numbers"), [
    ["kind", k.kind],
    ["calls in a run", digits(k.calls)],
    ["median of a call", time(k.call.median)],
    ["predicted", or(k.predicted, (s) => time(s / k.calls))],
    ["10th to 90th percentile", `${time(k.call.p10)} – ${time(k.call.p90)}`],
    ["shortest", time(k.call.min)],
    ["share of the time", percent(k.share)],
    ["operations in a run", work(k.flops, "FLOP")],
    ["read, written", `${work(k.bytes_read, "B")}, ${work(k.bytes_written, "B")}`],
    ["roof", or(k.roof, (r) => `${percent(r.share)} of ${r.wall}`)],
    ["threads busy", `${digits(k.busy)} of ${data.threads}`],
    ...Object.entries(k.counters ?? {}).map(([name, n]) => [`${name} in a call`, digits(n)]),
  ]);
  $("nodes").textContent = k.nodes.join("\n") || "none";
  $("nodes").style.whiteSpace = "pre-wrap";
  const schedules = k.schedules.length ? k.schedules : ["It has none: it is no kernel, or the model was read as a lowered program."];
  $("schedules").replaceChildren(...schedules.map((s) => el("pre", {}, s)));
  const functions = functionsOf(k).map((l, n) => {
    const d = el("details", n === 0 ? { open: "" } : {}, el("summary", {}, `${l.name} (${l.bytes} bytes)`));
    d.append(el("pre", { tabindex: 0 }, l.asm));
    return d;
  });
  $("code").replaceChildren(...(functions.length ? functions : [el("p", { class: "note" }, "No code of its own.")]));
  redraw.forEach((draw) => draw());
  if (show) $("detail").scrollIntoView({ block: "nearest" });
}

// Labels of lines, moved apart where they would lie on one another.
function apart(labels, least) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((l, i) => {
    if (i > 0) l.y = Math.max(l.y, labels[i - 1].y + least);
  });
  return labels;
}

function roofline() {
  const [width, height] = [$("roofline").clientWidth, 400];
  const [left, right, top, bottom] = [64, 16, 14, 44];
  const kernels = data.kernels.map((k, i) => ({ k, i, bytes: (k.bytes_read ?? 0) + (k.bytes_written ?? 0) }))
    .filter(({ k, bytes }) => k.flops > 0 && bytes > 0)
    .map((x) => ({ ...x, x: x.k.flops / x.bytes, y: x.k.flops_per_second }));
  const used = new Set(data.kernels.map((k) => k.roof?.wall));
  const walls = data.walls.filter((w) => w.bytes || w.name === "vectors" || w.name === "f32 tiles" || used.has(w.name));
  const peaks = walls.filter((w) => !w.bytes);
  const slopes = walls.filter((w) => w.bytes);
  const most = Math.max(...peaks.map((w) => w.per_second));
  const ridge = most / Math.min(...slopes.map((w) => w.per_second));
  const decade = (x, up) => 10 ** (up ? Math.ceil(Math.log10(x)) : Math.floor(Math.log10(x)));
  const x0 = decade(Math.min(0.1, ...kernels.map((p) => p.x)), false);
  const x1 = decade(Math.max(ridge * 2, ...kernels.map((p) => p.x)), true);
  const y0 = decade(Math.min(most / 1000, ...kernels.map((p) => p.y)), false);
  const y1 = decade(Math.max(most * 1.3, ...kernels.map((p) => p.y)), true);
  const part = (v, a, b) => Math.log(v / a) / Math.log(b / a);
  const X = (v) => left + part(v, x0, x1) * (width - left - right);
  const Y = (v) => height - bottom - part(v, y0, y1) * (height - top - bottom);
  const s = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Roofline" });
  for (let v = x0; v <= x1 * 1.01; v *= 10) {
    s.append(svg("line", { class: "grid", x1: X(v), x2: X(v), y1: top, y2: height - bottom }));
    s.append(svg("text", { x: X(v), y: height - bottom + 16, "text-anchor": "middle" }, digits(v)));
  }
  for (let v = y0; v <= y1 * 1.01; v *= 10) {
    s.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: Y(v), y2: Y(v) }));
    s.append(svg("text", { x: left - 8, y: Y(v) + 4, "text-anchor": "end" }, digits(v / 1e9)));
  }
  s.append(svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, "FLOP a byte"));
  s.append(svg("text", { transform: `translate(14 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "GFLOP/s"));
  // Names stand along the lines, at their upper ends; where lines are too close for that, the list below has them.
  const angle = (Math.atan2(Y(10) - Y(1), X(10) - X(1)) * 180) / Math.PI;
  let free = Infinity;
  for (const w of [...slopes].sort((a, b) => a.per_second - b.per_second)) {
    const from = Math.max(x0, y0 / w.per_second);
    const [x, y] = [X(most / w.per_second), Y(most)];
    s.append(svg("line", { class: "wall", x1: X(from), y1: Y(from * w.per_second), x2: x, y2: y }));
    if (free - x < 24) continue;
    free = x;
    // So far down that they are below the roof of arithmetic.
    const down = Math.min(140, 22 / Math.sin((Math.abs(angle) * Math.PI) / 180));
    const transform = `translate(${x} ${y}) rotate(${angle}) translate(${-down} -5)`;
    s.append(svg("text", { class: "slope", transform, "text-anchor": "end" }, w.name));
  }
  const levels = new Map();
  for (const w of peaks) levels.set(w.per_second, [...(levels.get(w.per_second) ?? []), w.name]);
  const tops = [];
  for (const [rate, of] of levels) {
    const from = rate / Math.max(...slopes.map((w) => w.per_second));
    s.append(svg("line", { class: "wall", x1: X(Math.max(from, x0)), y1: Y(rate), x2: width - right, y2: Y(rate) }));
    tops.push({ y: Y(rate) - 5, x: width - right - 2, text: `${of.join(", ")}: ${digits(rate / 1e9)} GFLOP/s` });
  }
  for (const l of apart(tops, 15)) s.append(svg("text", { x: l.x, y: l.y, "text-anchor": "end", class: "label" }, l.text));
  for (const { k, i, x, y } of [...kernels].sort((a, b) => b.k.share - a.k.share)) {
    const attributes = { class: `kernel${i === chosen ? " chosen" : ""}`, cx: X(x), cy: Y(y), r: 4 + 22 * Math.sqrt(k.share) };
    const c = svg("circle", { ...attributes, fill: colour(k), stroke: colour(k) });
    c.addEventListener("mousemove", (e) => tip(e, about(k)));
    c.addEventListener("mouseleave", untip);
    c.addEventListener("click", () => choose(i, true));
    s.append(c);
  }
  $("roofline").replaceChildren(s);
  const speed = (w) => (w.bytes ? `${w.name} ${count(w.per_second, "B")}/s` : `${w.name} ${count(w.per_second, "FLOP")}/s`);
  $("walls").textContent = walls.map(speed).join(" · ");
  const kinds = [...new Set(data.kernels.map((k) => kindOf(k.roof?.wall)))];
  $("legend").replaceChildren(...kinds.map((kind) =>
    el("li", {}, el("span", { class: "dot", style: `background:var(--${kind})` }), `bound by ${WALLS[kind]}`)));
}

// The timeline: a lane for each depth of steps, and one for each worker that took pieces.
const LANE = 24;
let view = [0, 1];
function lanes() {
  const depth = (s) => (data.steps[s].parent === null ? 0 : 1 + depth(data.steps[s].parent));
  const bars = data.timeline.steps.map(([s, a, b]) => ({ lane: depth(s), s, a, b }));
  const deep = Math.max(0, ...bars.map((x) => x.lane)) + 1;
  const titles = Array.from({ length: deep }, (_, d) => (d === 0 ? "steps" : `inside, ${d}`));
  if (data.timeline.pieces.length) {
    for (let w = 0; w < data.threads; w++) titles.push(`worker ${w}`);
    for (const [w, s, a, b] of data.timeline.pieces) bars.push({ lane: deep + w, s, a, b });
  }
  bars.sort((x, y) => x.a - y.a);
  return { bars, titles };
}

function timeline() {
  const { bars, titles } = lanes();
  const total = data.timeline.ns;
  const canvas = document.querySelector("#timeline canvas");
  const [left, top] = [72, 24];
  view = [0, total];
  $("timeline-note").textContent = `The run of median length, ${time(total * 1e-9)}; colours are those of the roofline.` +
    (data.timeline.left_out ? ` ${data.timeline.left_out} short pieces are left out.` : "");
  const height = top + titles.length * LANE + 4;
  const X = (ns, width) => left + ((ns - view[0]) / (view[1] - view[0])) * (width - left);
  const at = (e) => {
    const r = canvas.getBoundingClientRect();
    const ns = view[0] + ((e.clientX - r.left - left) / (r.width - left)) * (view[1] - view[0]);
    return { ns, lane: Math.floor((e.clientY - r.top - top) / LANE), outside: e.clientX - r.left < left };
  };
  const draw = () => {
    const width = $("timeline").clientWidth;
    const scale = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [width * scale, height * scale];
    canvas.style.height = `${height}px`;
    const c = canvas.getContext("2d");
    c.scale(scale, scale);
    c.font = `12px ${style("sans")}`;
    const [ink, soft, line] = [style("ink"), style("soft"), style("line")];
    const colours = Object.fromEntries(Object.keys(WALLS).map((k) => [k, style(k)]));
    const span = view[1] - view[0];
    const raw = span / Math.max(2, (width - left) / 110);
    const step = [1, 2, 5, 10].map((m) => m * 10 ** Math.floor(Math.log10(raw))).find((x) => x >= raw);
    c.textAlign = "center";
    for (let v = Math.ceil(view[0] / step) * step; v <= view[1]; v += step) {
      const x = X(v, width);
      c.fillStyle = line;
      c.fillRect(x, top - 4, 1, height);
      c.fillStyle = soft;
      if (x > left + 24 && x < width - 30) c.fillText(time(v * 1e-9), x, 14);
    }
    c.textAlign = "left";
    titles.forEach((t, i) => {
      c.fillStyle = soft;
      c.fillText(t, 0, top + i * LANE + 16);
    });
    c.save();
    c.beginPath();
    c.rect(left, 0, width - left, height);
    c.clip();
    for (const { lane, s, a, b } of bars) {
      if (b < view[0] || a > view[1]) continue;
      const i = rowOfStep.get(s);
      const k = data.kernels[i];
      const [x, y] = [X(a, width), top + lane * LANE + 2];
      const w = Math.max(0.7, X(b, width) - x - 0.5);
      c.fillStyle = colours[kindOf(k?.roof?.wall)];
      c.globalAlpha = i === chosen ? 1 : 0.55;
      c.fillRect(x, y, w, LANE - 4);
      c.globalAlpha = 1;
      const name = data.steps[s].name;
      if (w > 40) {
        c.fillStyle = ink;
        const fits = Math.floor((w - 8) / 7.4);
        c.fillText(name.length > fits ? `${name.slice(0, fits - 1)}…` : name, x + 4, y + 14);
      }
    }
    c.restore();
  };
  const zoom = (factor, ns = (view[0] + view[1]) / 2) => {
    const span = Math.min(total, Math.max(50, (view[1] - view[0]) * factor));
    const from = ns - (ns - view[0]) * (span / (view[1] - view[0]));
    move(from, span);
  };
  const move = (from, span) => {
    const a = Math.max(0, Math.min(from, total - span));
    view = [a, a + span];
    draw();
  };
  const under = (e) => {
    const { ns, lane, outside } = at(e);
    return outside ? undefined : bars.findLast((b) => b.lane === lane && b.a <= ns && ns <= b.b);
  };
  let drag = null;
  canvas.addEventListener("pointerdown", (e) => {
    drag = { x: e.clientX, from: view[0], moved: false };
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    const span = view[1] - view[0];
    if (drag) {
      drag.moved ||= Math.abs(e.clientX - drag.x) > 3;
      move(drag.from - ((e.clientX - drag.x) / (canvas.clientWidth - left)) * span, span);
      return untip();
    }
    const bar = under(e);
    if (!bar) return untip();
    const row = data.kernels[rowOfStep.get(bar.s)];
    tip(e, `step ${bar.s}, ${time((bar.b - bar.a) * 1e-9)}\n${row ? about(row) : data.steps[bar.s].name}`);
  });
  canvas.addEventListener("pointerup", (e) => {
    const bar = drag && !drag.moved && under(e);
    drag = null;
    if (bar && rowOfStep.has(bar.s)) choose(rowOfStep.get(bar.s), false);
  });
  canvas.addEventListener("pointerleave", untip);
  canvas.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    zoom(e.deltaY > 0 ? 1.25 : 0.8, at(e).ns);
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const span = view[1] - view[0];
    const keys = { ArrowLeft: () => move(view[0] - span / 8, span), ArrowRight: () => move(view[0] + span / 8, span),
      "+": () => zoom(0.5), "-": () => zoom(2) };
    if (keys[e.key]) {
      e.preventDefault();
      keys[e.key]();
    }
  });
  $("closer").addEventListener("click", () => zoom(0.5));
  $("wider").addEventListener("click", () => zoom(2));
  $("whole").addEventListener("click", () => move(0, total));
  return draw;
}

// The arena: temporaries by their offsets, from the first step that touches them to the last.
function memory() {
  const { bytes, blocks, unknown } = data.arena;
  const steps = data.steps.length;
  const live = Array.from({ length: steps }, (_, n) =>
    blocks.filter((b) => b.first <= n && n <= b.last).reduce((sum, b) => sum + b.bytes, 0));
  const peak = Math.max(0, ...live);
  $("memory-note").textContent = !blocks.length
    ? "The model has no temporaries of a size that is known."
    : `Temporaries of the arena by offset, over the steps. The line is what is in use: ${count(peak, "B")} at most, in an arena of ` +
      `${count(bytes, "B")}.` + (unknown ? ` ${unknown} temporaries have no place before the run.` : "");
  if (!blocks.length) return $("memory").replaceChildren();
  const [width, height] = [$("memory").clientWidth, 320];
  const [left, right, top, bottom] = [64, 16, 10, 40];
  const most = Math.max(bytes, ...blocks.map((b) => b.offset + b.bytes), 1);
  const X = (n) => left + (n / steps) * (width - left - right);
  const Y = (b) => height - bottom - (b / most) * (height - top - bottom);
  const s = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Memory of the arena over the steps" });
  for (let i = 0; i <= 4; i++) {
    const y = Y((most * i) / 4);
    s.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }));
    s.append(svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, count((most * i) / 4, "B")));
  }
  const every = Math.max(1, Math.ceil(steps / Math.max(2, (width - left) / 90)));
  for (let n = 0; n < steps; n += every) {
    s.append(svg("text", { x: (X(n) + X(n + 1)) / 2, y: height - bottom + 16, "text-anchor": "middle" }, n));
  }
  s.append(svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "step"));
  const mine = new Set(data.kernels[chosen]?.steps);
  for (const b of blocks) {
    const [x, y] = [X(b.first), Y(b.offset + b.bytes)];
    const r = svg("rect", {
      class: `block${mine.has(b.first) ? " mine" : ""}`, x, y, width: X(b.last + 1) - x, height: Math.max(0.5, Y(b.offset) - y),
    });
    r.addEventListener("mousemove", (e) => tip(e, `${b.slot}: ${b.type}\n${count(b.bytes, "B")} at ${b.offset}, ` +
      `steps ${b.first} to ${b.last}${b.nodes.length ? `\n${b.nodes.join(", ")}` : ""}`));
    r.addEventListener("mouseleave", untip);
    r.addEventListener("click", () => rowOfStep.has(b.first) && choose(rowOfStep.get(b.first), false));
    s.append(r);
  }
  const points = live.flatMap((b, n) => [`${X(n)},${Y(b)}`, `${X(n + 1)},${Y(b)}`]);
  s.append(svg("polyline", { class: "live", points: points.join(" "), "pointer-events": "none" }));
  $("memory").replaceChildren(s);
}

head();
table();
redraw.push(roofline, memory);
if (data.timeline) redraw.push(timeline());
if (data.kernels.length) choose(0, false);
else $("detail").hidden = true;
const again = () => redraw.forEach((draw) => draw());
addEventListener("resize", again);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
