// The picture of an e-graph: classes as boxes in layers, operands to the left.

// Boxes of a picture, at most, and classes of a graph that is shown as a whole.
const MOST = 60;
const FEW = 36;
// E-nodes that a box shows.
const ROWS = 6;
// Pixels of a box and its rows, and between boxes.
const [WIDE, HEAD, ROW, GAP, BETWEEN] = [216, 38, 18, 22, 84];
const measure = document.createElement("canvas").getContext("2d");
const FONTS = { title: `600 12px ${style("sans")}`, plain: `11px ${style("mono")}` };
// As much of a text as stands in a box: its end where names are told apart by that.
const clip = (text, font) => {
  measure.font = FONTS[font];
  const part = (n) => (n >= text.length ? text : font === "title" ? `…${text.slice(-n)}` : `${text.slice(0, n)}…`);
  let n = text.length;
  while (n > 1 && measure.measureText(part(n)).width > WIDE - 22) n--;
  return part(n);
};
const rowsOf = (c) => {
  const { enodes, chosen: taken } = classes[c];
  const all = enodes.map((n, k) => ({ n, taken: k === taken })).filter((r) => !$("only").checked || r.taken);
  return all.sort((a, b) => b.taken - a.taken || (a.n.seconds ?? 1e9) - (b.n.seconds ?? 1e9));
};

// The classes around one, the nearest first: of the program before others.
function around(c) {
  const only = $("only").checked;
  const below = (x) => [...(only ? new Set(rowsOf(x).flatMap((r) => r.n.operands)) : operands(x))];
  const above = (x) => [...users[x]].filter((u) => !only || below(u).includes(x));
  const far = classes.length <= FEW ? Infinity : +$("steps").value;
  const found = new Map([[c, 0]]);
  for (const x of found.keys()) {
    if (found.get(x) >= far) continue;
    const next = [...below(x), ...above(x)].filter((o) => !found.has(o));
    next.sort((a, b) => used(b) - used(a));
    for (const o of next) if (found.size < MOST) found.set(o, found.get(x) + 1);
  }
  return [...found.keys()];
}

// Layers by the longest way from what has no operands here; what closes a circle does not count.
function layers(all) {
  const inside = new Set(all);
  const layer = new Map();
  const open = new Set();
  // What is stored of a stream stands behind it, though it may be loaded again.
  const stores = (o, c) => classes[o].enodes.some((n) => n.op === "store" && n.operands[0] === c);
  const before = (c) => rowsOf(c).flatMap((r) => r.n.operands.filter((o) => inside.has(o) && !(r.n.op === "load" && stores(o, c))));
  const visit = (c) => {
    if (layer.has(c)) return layer.get(c);
    open.add(c);
    let at = 0;
    for (const o of before(c)) if (!open.has(o)) at = Math.max(at, visit(o) + 1);
    open.delete(c);
    layer.set(c, at);
    return at;
  };
  all.forEach(visit);
  // Leaves stand beside who reads them first.
  for (const c of all) {
    const readers = [...users[c]].filter((u) => inside.has(u) && layer.get(u) > layer.get(c)).map((u) => layer.get(u));
    if (readers.length && !before(c).length) layer.set(c, Math.min(...readers) - 1);
  }
  const out = [];
  for (const c of all) (out[layer.get(c)] ??= []).push(c);
  return out.filter(Boolean);
}

// Boxes with their places: each near the mean of its neighbours, none on another. Where an edge passes a layer it has a place as well:
// `via` has those of what an operand is read behind, by operand.
function places(all) {
  const columns = layers(all);
  const box = new Map();
  const via = new Map();
  columns.forEach((column, i) => {
    let y = 0;
    for (const c of column) {
      const rows = rowsOf(c);
      const shown = Math.min(rows.length, ROWS);
      const height = HEAD + ROW * (shown + (rows.length > shown ? 1 : 0)) + 6;
      box.set(c, { c, x: i * (WIDE + BETWEEN), y, height, rows: rows.slice(0, shown), left: rows.length - shown });
      y += height + GAP;
    }
  });
  const near = new Map(all.map((c) => [c, []]));
  const beside = (a, b) => [[a, b], [b, a]].forEach(([x, y]) => near.get(x).push(y));
  const at = (c) => box.get(c).x / (WIDE + BETWEEN);
  for (const c of all) {
    for (const o of box.get(c).rows.flatMap((r) => r.n.operands)) {
      if (o === c || !box.has(o)) continue;
      const passed = via.get(o) ?? via.set(o, []).get(o);
      let last = o;
      for (let i = at(o) + 1; i < at(c); i++) {
        const place = `${o} in layer ${i}`;
        if (!box.has(place)) {
          box.set(place, { x: i * (WIDE + BETWEEN), y: box.get(last).y, height: 4 });
          near.set(place, []);
          columns[i].push(place);
          passed.push(box.get(place));
          beside(last, place);
        }
        last = place;
      }
      beside(last, c);
    }
  }
  for (const passed of via.values()) passed.sort((a, b) => a.x - b.x);
  const middle = (b) => b.y + b.height / 2;
  const wish = (c) => {
    const ys = near.get(c).map((o) => middle(box.get(o)));
    return ys.length ? ys.reduce((a, b) => a + b, 0) / ys.length : middle(box.get(c));
  };
  for (let sweep = 0; sweep < 12; sweep++) {
    for (const column of sweep % 2 ? [...columns].reverse() : columns) {
      const wishes = new Map(column.map((c) => [c, wish(c)]));
      column.sort((a, b) => wishes.get(a) - wishes.get(b));
      let end = -Infinity;
      for (const c of column) {
        const b = box.get(c);
        b.y = Math.max(wishes.get(c) - b.height / 2, end);
        end = b.y + b.height + GAP;
      }
      const shift = column.reduce((sum, c) => sum + wishes.get(c) - middle(box.get(c)), 0) / column.length;
      for (const c of column) box.get(c).y += shift;
    }
  }
  return { box, via };
}

// From an operand to the e-node that reads it, past the layers between; on its other side where the operand stands behind.
function edge(from, to, y, passed) {
  const curve = (x1, y1, x2, y2, side) => {
    const bend = Math.max(28, Math.abs(x2 - x1) / 2) * side;
    return `C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  };
  const middle = from.y + from.height / 2;
  if (from === to) return `M${to.x} ${y - 4} c-26 -10 -26 18 0 8`;
  if (from.x >= to.x) return `M${from.x} ${middle + 6} ${curve(from.x, middle + 6, to.x + WIDE, y, -1)}`;
  let [x, at, path] = [from.x + WIDE, middle, `M${from.x + WIDE} ${middle}`];
  for (const p of passed.filter((p) => p.x < to.x)) {
    path += `${curve(x, at, p.x, p.y + 2, 1)} H${p.x + WIDE}`;
    [x, at] = [p.x + WIDE, p.y + 2];
  }
  return path + curve(x, at, to.x, y, 1);
}

function drawBox(b) {
  const { c, x, y, height } = b;
  const { type, stored } = classes[c];
  const kinds = ["box", used(c) ? "" : "unused", c === chosen ? "chosen" : ""].filter(Boolean).join(" ");
  const terms = b.rows.map((r) => r.n.op).join(", ");
  const g = svg("g", { class: kinds, tabindex: 0, role: "button", "data-class": c, "aria-label": `${label(c)}, ${type}: ${terms}` });
  g.append(svg("title", {}, `${label(c)}\n${type}`));
  g.append(svg("rect", { class: "frame", x, y, width: WIDE, height, rx: 7 }));
  if (stored || (used(c) && !classes[c].stream)) g.append(svg("rect", { class: "memory", x: x + WIDE - 4, y: y + 7, width: 4, height: height - 14 }));
  g.append(svg("text", { class: "title", x: x + 10, y: y + 16 }, clip(label(c), "title")));
  g.append(svg("text", { x: x + 10, y: y + 31 }, clip(type, "plain")));
  b.rows.forEach((r, i) => {
    const top = y + HEAD + i * ROW;
    if (r.taken) g.append(svg("rect", { class: "row", x: x + 5, y: top, width: WIDE - 12, height: ROW, rx: 3 }));
    const t = svg("text", { class: "term", x: x + 10, y: top + 13 }, clip(leaf(r.n.op), "plain"));
    t.append(svg("title", {}, r.n.op));
    g.append(t);
  });
  if (b.left) g.append(svg("text", { x: x + 10, y: y + HEAD + b.rows.length * ROW + 13 }, `and ${b.left} more`));
  onChoose(g, () => !moved && choose(c, false));
  return g;
}

let view = null;
let whole = null;
let moved = false;
const show = () => $("picture").firstChild.setAttribute("viewBox", [view.x, view.y, view.w, view.h].map((v) => v.toFixed(1)).join(" "));

function picture() {
  const focused = $("picture").contains(document.activeElement);
  const { box, via } = places(around(chosen));
  const all = [...box.values()].filter((b) => b.rows);
  const [x0, x1] = [Math.min(...all.map((b) => b.x)), Math.max(...all.map((b) => b.x + WIDE))];
  const [y0, y1] = [Math.min(...all.map((b) => b.y)), Math.max(...all.map((b) => b.y + b.height))];
  const s = svg("svg", { tabindex: 0, role: "group", "aria-label": "Classes and their e-nodes", preserveAspectRatio: "xMidYMid meet" });
  const [edges, over] = [svg("g"), svg("g")];
  for (const b of all) {
    b.rows.forEach((r, i) => {
      for (const o of new Set(r.n.operands)) {
        if (!box.has(o)) continue;
        const path = svg("path", { class: ["edge", r.taken ? "used" : "", box.get(o).x > b.x ? "behind" : ""].filter(Boolean).join(" "), d: edge(box.get(o), b, b.y + HEAD + (i + 0.5) * ROW, via.get(o) ?? []) });
        (r.taken ? over : edges).append(path);
      }
    });
  }
  s.append(edges, over, ...all.map(drawBox));
  $("picture").replaceChildren(s);
  const [width, height] = [s.clientWidth || 1000, s.clientHeight || 520];
  whole = { x: x0 - 40, y: y0 - 24, w: Math.max(x1 - x0 + 80, width), h: Math.max(y1 - y0 + 48, height) };
  whole.x -= Math.max(0, width - (x1 - x0 + 80)) / 2;
  whole.y -= Math.max(0, height - (y1 - y0 + 48)) / 2;
  // So that it can be read: the whole where that is not too small, else what is around the chosen.
  const at = box.get(chosen);
  const scale = Math.max(whole.w / width, whole.h / height);
  const within = (x, low, high) => Math.max(low, Math.min(x, high));
  view = scale <= 1.25 ? { ...whole } : {
    x: within(at.x + (WIDE - width) / 2, whole.x, whole.x + whole.w - width),
    y: within(at.y + (at.height - height) / 2, whole.y, whole.y + whole.h - height),
    w: width, h: height,
  };
  show();
  pointer(s);
  if (focused) s.querySelector(".box.chosen").focus({ preventScroll: true });
}

function zoom(factor, x = view.x + view.w / 2, y = view.y + view.h / 2) {
  const most = Math.max(1, whole.w * 3 / view.w, whole.h * 3 / view.h);
  const f = Math.max(120 / view.w, Math.min(factor, most));
  view = { x: x - (x - view.x) * f, y: y - (y - view.y) * f, w: view.w * f, h: view.h * f };
  show();
}

function pointer(s) {
  const at = (e) => new DOMPoint(e.clientX, e.clientY).matrixTransform(s.getScreenCTM().inverse());
  let drag = null;
  s.addEventListener("pointerdown", (e) => {
    drag = { start: at(e), x: e.clientX, y: e.clientY };
    moved = false;
  });
  s.addEventListener("pointermove", (e) => {
    if (!drag) return;
    if (!moved && Math.hypot(e.clientX - drag.x, e.clientY - drag.y) < 4) return;
    if (!moved) s.setPointerCapture(e.pointerId);
    moved = true;
    const p = at(e);
    view.x += drag.start.x - p.x;
    view.y += drag.start.y - p.y;
    show();
  });
  s.addEventListener("pointerup", () => (drag = null));
  s.addEventListener("pointercancel", () => (drag = null));
  s.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !e.metaKey && !s.contains(document.activeElement)) return;
    e.preventDefault();
    const p = at(e);
    zoom(e.deltaY > 0 ? 1.15 : 1 / 1.15, p.x, p.y);
  }, { passive: false });
  s.addEventListener("keydown", (e) => {
    const [dx, dy] = [view.w / 12, view.h / 12];
    const move = (x, y) => {
      view.x += x;
      view.y += y;
      show();
    };
    const keys = { ArrowLeft: () => move(-dx, 0), ArrowRight: () => move(dx, 0), ArrowUp: () => move(0, -dy), ArrowDown: () => move(0, dy),
      "+": () => zoom(0.8), "-": () => zoom(1.25), 0: () => $("whole").click() };
    if (!keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
  });
}
