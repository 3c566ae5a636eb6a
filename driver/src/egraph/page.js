// The page of an e-graph.
const TOP = 20;
const { classes, kernels, rules } = data;

const used = (c) => classes[c].chosen !== undefined;
const operands = (c) => new Set(classes[c].enodes.flatMap((n) => n.operands));
const users = classes.map(() => new Set());
classes.forEach((_, c) => operands(c).forEach((o) => o !== c && users[o].add(c)));
const operator = (n) => n.op.split("{")[0];
const nodes = (all) => (all ?? []).map((n) => data.nodes[n]);
const leaf = (op) => {
  const input = /^input (\d+)$/.exec(op);
  return input ? data.inputs[input[1]] : op;
};
const label = (c) => {
  const { value, number, enodes } = classes[c];
  const [n] = enodes;
  return value ?? (nodes(classes[c].nodes).join(" + ") || (number ?? (n.op === "load" ? label(n.operands[0]) : leaf(n.op))));
};
const more = (s) => (Math.abs(s) < 1e-12 ? "the same" : `${s > 0 ? "+" : "−"}${time(Math.abs(s))}`);
const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const link = (c) => {
  const b = el("button", { type: "button", class: "link" }, label(c));
  b.addEventListener("click", (e) => {
    e.stopPropagation();
    choose(c, true);
  });
  return b;
};

// A table with columns [title, classes, what a row shows, what it is sorted by]; rows can be chosen where `act` is given.
function table(id, columns, rows, { act, top = Infinity, sorted, mark } = {}) {
  const place = $(id);
  let [by, down] = [sorted, true];
  let all = false;
  const draw = () => {
    const head = columns.map(([title, kind, , value], i) => {
      const th = el("th", { class: kind, scope: "col" });
      if (!value) th.append(title);
      else {
        const b = el("button", { type: "button" }, title);
        b.addEventListener("click", () => {
          [by, down] = [i, by === i ? !down : true];
          draw();
          place.tHead.rows[0].cells[i].firstChild.focus();
        });
        if (by === i) th.setAttribute("aria-sort", down ? "descending" : "ascending");
        th.append(b);
      }
      return th;
    });
    const compare = (a, b) => {
      const [x, y] = [columns[by][3](a), columns[by][3](b)];
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    };
    const order = by === undefined ? rows : [...rows].sort(compare);
    const body = order.slice(0, all ? Infinity : top).map((r) => {
      const tr = el("tr", mark?.(r) ?? {});
      for (const [, kind, show] of columns) {
        const shown = show(r);
        const td = el("td", { class: kind }, ...(Array.isArray(shown) ? shown : [shown]));
        if (/law|name/.test(kind)) td.title = td.textContent;
        tr.append(td);
      }
      if (act) {
        tr.tabIndex = 0;
        onChoose(tr, () => act(r));
      }
      return tr;
    });
    place.replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
    place.parentNode.querySelector(".more")?.remove();
    if (order.length > body.length) {
      const b = el("button", { type: "button", class: "more" }, `Show ${order.length - body.length} more`);
      b.addEventListener("click", () => {
        all = true;
        draw();
      });
      place.after(b);
    }
  };
  draw();
}

const bar = (part, colour) => {
  const i = el("i", { style: `width:${100 * part}%;background:var(--${colour})` });
  return el("span", { class: "bar", "aria-hidden": true }, i);
};

function head() {
  const { saturation: s, program: p } = data;
  $("model").textContent = data.model;
  $("setting").textContent = [data.target, plural(data.nodes.length, "node of the model", "nodes of the model")].join(" · ");
  facts($("facts"), [
    ["predicted time", time(p.seconds)],
    ["lower bound", p.bound === null ? "too large to tell" : time(p.bound)],
    ["above it, at most", p.bound > 0 ? `${digits(100 * Math.max(0, p.seconds / p.bound - 1), 2)} %` : "–"],
    ["kernels", p.kernels],
    ["e-nodes", s.nodes],
    ["e-classes", s.classes],
    ["rewrites", s.rewrites],
    ["saturation", time(s.seconds)],
  ]);
  $("stop").textContent = `${s.stop[0].toUpperCase()}${s.stop.slice(1)} after ${plural(s.rounds, "round")}.`;
}

function growth() {
  const rows = data.growth;
  const longest = Math.max(...rows.map((r) => r.seconds ?? 0)) || 1;
  table("rounds", [
    ["round", "", (r) => (r.round === 0 ? "the model" : r.round)],
    ["e-nodes", "", (r) => r.nodes],
    ["e-classes", "", (r) => r.classes],
    ["rewrites", "", (r) => r.rewrites],
    ["time", "", (r) => (r.seconds === null ? "–" : [time(r.seconds), bar(r.seconds / longest, "enodes")])],
  ], rows);
  const draw = () => {
    const [width, height] = [$("growth").clientWidth, 260];
    const [left, right, top, bottom] = [56, 78, 12, 40];
    const most = Math.max(...rows.map((r) => r.nodes), 1);
    const unit = 10 ** Math.floor(Math.log10(most / 4));
    const step = [1, 2, 5, 10].map((m) => Math.max(1, m * unit)).find((x) => most / x <= 5);
    const ceiling = Math.ceil(most / step) * step;
    const last = Math.max(1, rows.length - 1);
    const X = (n) => left + (n / last) * (width - left - right);
    const Y = (n) => height - bottom - (n / ceiling) * (height - top - bottom);
    const s = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "E-nodes and e-classes behind each round" });
    for (let n = 0; n <= ceiling; n += step) {
      s.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: Y(n), y2: Y(n) }));
      s.append(svg("text", { x: left - 8, y: Y(n) + 4, "text-anchor": "end" }, n));
    }
    const every = Math.max(1, Math.ceil(rows.length / Math.max(2, (width - left - right) / 36)));
    for (let n = 0; n < rows.length; n += every) {
      s.append(svg("text", { x: X(n), y: height - bottom + 18, "text-anchor": "middle" }, n));
    }
    s.append(svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "round"));
    const ends = [["nodes", "e-nodes", "enodes"], ["classes", "e-classes", "classes"]].map(([field, title, colour]) => {
      const points = rows.map((r, n) => `${X(n)},${Y(r[field])}`).join(" ");
      s.append(svg("polyline", { class: "curve", points, stroke: `var(--${colour})` }));
      for (const [n, r] of rows.entries()) {
        const dot = svg("circle", { cx: X(n), cy: Y(r[field]), r: 3.5, fill: `var(--${colour})` });
        dot.addEventListener("mousemove", (e) => tip(e, `round ${n}: ${r[field]} ${title}`));
        dot.addEventListener("mouseleave", untip);
        s.append(dot);
      }
      return { title, y: Y(rows[rows.length - 1][field]) + 4, colour };
    });
    if (ends[1].y - ends[0].y < 14) ends[1].y = ends[0].y + 14;
    for (const e of ends) s.append(svg("text", { x: width - right + 10, y: e.y, style: `fill:var(--${e.colour})` }, e.title));
    $("growth").replaceChildren(s);
  };
  draw();
  addEventListener("resize", draw);
}

function ruleTable() {
  const total = (r) => r.search_seconds + r.apply_seconds;
  const longest = Math.max(...rules.map(total)) || 1;
  const draw = () => table("rules", [
    ["rule", "text name", (r) => r.name, (r) => r.name],
    ["", "text law wide", (r) => r.law || (r.text ?? "").replace(/^\S+ \[[^\]]*\] /, "")],
    ["class", "text wide", (r) => r.class, (r) => r.class],
    ["rewrites", "", (r) => r.rewrites, (r) => r.rewrites],
    ["matches", "", (r) => r.matches, (r) => r.matches],
    ["new e-nodes", "", (r) => r.nodes, (r) => r.nodes],
    ["search", "wide", (r) => time(r.search_seconds), (r) => r.search_seconds],
    ["apply", "wide", (r) => time(r.apply_seconds), (r) => r.apply_seconds],
    ["time", "", (r) => [time(total(r)), bar(total(r) / longest, "enodes")], total],
  ], rules.filter((r) => $("idle").checked || r.rewrites > 0), { act: chooseRule, top: TOP, sorted: 3 });
  $("idle").addEventListener("change", draw);
  draw();
}

const kernelOf = new Map(kernels.map((k, i) => [k.class, i]));
const inKernels = classes.map(() => []);
kernels.forEach((k, i) => k.classes.forEach((c) => inKernels[c].push(i)));
const first = (all, between, n = 3) =>
  all.length > n + 1 ? `${all.slice(0, n).join(between)} and ${all.length - n} more` : all.join(between);
const kernelName = (k) => nodes(k.nodes).join(" + ") || "(no node)";
const isNews = (r) => r.name !== "number";

function kernelTable() {
  const running = kernels.filter((k) => !k.constant);
  const longest = Math.max(...running.map((k) => k.seconds)) || 1;
  const made = (k) => first(k.rules.filter(isNews).map((r) => (r.steps > 1 ? `${r.name} ×${r.steps}` : r.name)), ", ");
  table("kernels", [
    ["#", "text soft", (k) => k.place, (k) => -k.place],
    ["nodes of the model", "text many", (k) => first(nodes(k.nodes), " + ") || "(no node)", kernelName],
    ["computes", "text many wide", (k) => k.operators.join(", ")],
    ["type", "text wide", (k) => k.type],
    ["by rules", "text many soft wide", (k) => made(k) || "as the model has it"],
    ["predicted", "", (k) => (k.constant ? "at compile time" : [time(k.seconds), bar(k.seconds / longest, "enodes")]), (k) => k.seconds],
  ], [...running, ...kernels.filter((k) => k.constant)].map((k, i) => ({ ...k, place: i + 1 })), {
    act: (k) => choose(k.class, true), top: TOP, mark: (k) => ({ "data-class": k.class, "aria-selected": k.class === chosen }),
  });
}

// Search: whatever has classes, by its name.
const index = [];
{
  const ofNodes = data.nodes.map(() => []);
  const ofOperators = new Map();
  classes.forEach(({ nodes, enodes }, c) => {
    for (const n of nodes ?? []) ofNodes[n].push(c);
    for (const op of new Set(enodes.map(operator))) ofOperators.set(op, [...(ofOperators.get(op) ?? []), c]);
  });
  ofNodes.forEach((all, n) => index.push({ kind: "node", name: data.nodes[n], all }));
  [...ofOperators].sort(([a], [b]) => (a < b ? -1 : 1)).forEach(([name, all]) => index.push({ kind: "operator", name, all }));
  for (const r of rules) if (r.classes.length) index.push({ kind: "rule", name: r.name, all: r.classes, law: r.law });
  // Kernels first, then what else is in the program.
  const rank = (c) => (kernelOf.has(c) ? 0 : used(c) ? 1 : 2);
  for (const hit of index) hit.all = [...hit.all].sort((a, b) => rank(a) - rank(b) || a - b);
}

function search() {
  const query = $("query").value.trim().toLowerCase();
  const rank = ({ name }) => {
    const at = name.toLowerCase().indexOf(query);
    return at < 0 ? Infinity : at === 0 ? (name.length === query.length ? 0 : 1) : 2;
  };
  const hits = query ? index.filter((h) => h.all.length && rank(h) < 3).sort((a, b) => rank(a) - rank(b)) : [];
  const shown = hits.slice(0, 40).map((h) => {
    const b = el("button", { type: "button", class: "chip" }, el("span", { class: "kind" }, h.kind), h.name);
    b.addEventListener("click", () => take(h));
    return b;
  });
  if (query && !hits.length) shown.push(el("span", { class: "note" }, "nothing of that name has a class"));
  if (hits.length > shown.length) shown.push(el("span", { class: "note" }, `and ${hits.length - shown.length} more`));
  $("hits").replaceChildren(...shown);
  $("found").replaceChildren();
  return hits;
}

// Chooses the first class of a hit, and lists the others.
function take(hit) {
  const chips = hit.all.slice(0, 40).map((c) => {
    const b = el("button", { type: "button", class: "chip", "data-class": c }, label(c));
    b.addEventListener("click", () => choose(c, true));
    return b;
  });
  const rest = hit.all.length - chips.length;
  const note = `${hit.kind} ${hit.name}${hit.law ? ` (${hit.law.replace(/\.$/, "")})` : ""}: ${plural(hit.all.length, "class", "classes")}${rest > 0 ? `, the first ${chips.length}` : ""}`;
  $("hits").replaceChildren();
  $("found").replaceChildren(el("span", { class: "note" }, note), ...chips);
  if (hit.all.length) choose(hit.all[0], true);
}
const chooseRule = (r) => take(index.find((h) => h.kind === "rule" && h.name === r.name) ?? { kind: "rule", ...r, all: [] });

// What a class was chosen from: the chosen first, then by what the others cost.
function choices(c) {
  const { enodes, open = [], stored } = classes[c];
  const by = new Map(open.filter((o) => o.enode !== undefined).map((o) => [o.enode, o]));
  const rows = enodes.map((n, k) => ({ n, taken: k === classes[c].chosen, open: by.get(k) }));
  const other = open.find((o) => o.stored !== undefined);
  if (other) {
    rows.push({ place: stored, taken: true }, { place: other.stored, open: other });
  }
  const rank = (r) => (r.taken ? -2 - (r.n ? 1 : 0) : r.open ? (r.open.seconds ?? 1e8) : 1e9);
  return rows.sort((a, b) => rank(a) - rank(b));
}

function choiceTable(c) {
  const outcome = (r) => {
    if (r.taken) return used(c) ? "chosen" : "–";
    if (r.open) return r.open.seconds === undefined ? r.open.refused : more(r.open.seconds);
    return r.n?.composite ? "has no kernel of its own" : "–";
  };
  const what = (r) => {
    if (!r.n) return r.place ? "in memory, computed once" : "computed where it is read";
    const of = r.n.operands.flatMap((o, i) => [...(i ? [", "] : []), link(o)]);
    return of.length ? [`${r.n.op}(`, ...of, ")"] : leaf(r.n.op);
  };
  table("choices", [
    ["", "text code", what],
    ["made by", "text wide soft", (r) => (r.n?.rule === undefined ? "" : rules[r.n.rule].name)],
    ["by itself", "wide", (r) => or(r.n?.seconds, time)],
    ["the program takes", "text many", outcome],
    ["decision", "text code wide soft", (r) => r.open?.decision ?? ""],
  ], choices(c), { top: TOP, mark: (r) => (r.taken && used(c) ? { class: "is-chosen" } : {}) });
  const note = !used(c)
    ? "The program does not compute it, so nothing of it has a price."
    : classes[c].constant ? "It is constant, and computed when the model is compiled: nothing of it has a price."
    : classes[c].open ? "" : "There was nothing to choose.";
  $("choices-note").textContent = note;
  $("choices-note").hidden = !note;
}

let chosen = -1;
function choose(c, show) {
  chosen = c;
  const k = kernels[kernelOf.get(c)];
  $("h-detail").textContent = label(c);
  const { id, type, stream, stored, constant, number } = classes[c];
  const where = !used(c) ? "not in the program" : constant ? "computed at compile time" : k || stored ? "a kernel writes it"
    : stream ? "computed where it is read" : "in memory";
  facts($("numbers"), [
    ["e-class", id],
    ["type", `${type}${stream ? ", a stream" : ""}`],
    ["nodes of the model", nodes(classes[c].nodes).join(", ") || "none"],
    ["in the program", where],
    ["part of kernels", first(inKernels[c].map((i) => first(nodes(kernels[i].nodes), " + ") || "(no node)"), "; ") || "none"],
    ...(k && !k.constant ? [["predicted time of its kernel", time(k.seconds)]] : []),
    ...(number ? [["the number", number]] : []),
  ]);
  const items = (all, how) => all.filter(isNews).map((r) =>
    el("li", {}, `${how} `, el("code", {}, r.name), `${r.steps > 1 ? ` ×${r.steps}` : ""}${r.rule === undefined || r.rule === null ? "" : `: ${rules[r.rule].law}`}`));
  const made = k ? [...items(k.rules, "by"), ...items(k.constants, "reads what is made at compile time by")] : [];
  const title = el("h3", {}, "The rules that made its kernel");
  $("kernel").replaceChildren(...(k ? [title, el("ul", {}, ...(made.length ? made : [el("li", {}, "as the model has it")]))] : []));
  choiceTable(c);
  for (const e of document.querySelectorAll("#kernels tr[data-class]")) e.setAttribute("aria-selected", +e.dataset.class === c);
  for (const e of document.querySelectorAll("#found .chip")) e.setAttribute("aria-pressed", +e.dataset.class === c);
  picture();
  if (show) {
    const above = $("search").getBoundingClientRect().height + 12;
    scrollTo({ top: scrollY + $("detail").getBoundingClientRect().top - above });
  }
}

function openTable() {
  const rows = classes.flatMap(({ open = [] }, c) => open.filter((o) => o.decision && o.seconds !== undefined).map((o) => ({ c, ...o })));
  rows.sort((a, b) => a.seconds - b.seconds);
  const now = ({ c, enode }) => (enode === undefined ? (classes[c].stored ? "in memory" : "computed where it is read") : `by ${operator(classes[c].enodes[classes[c].chosen])}`);
  table("open", [
    ["decision", "text code", (o) => o.decision],
    ["now", "text many soft", now],
    ["type", "text wide", (o) => classes[o.c].type],
    ["the program takes", "text", (o) => more(o.seconds)],
  ], rows, { act: (o) => choose(o.c, true), top: TOP });
}

function layoutTable() {
  $("of-layouts").hidden = !data.layouts.length;
  table("layouts", [
    ["decisions", "text code", (l) => l.decisions.join("\n")],
    ["about", "text many soft", (l) => l.about],
    ["the program takes", "text", (l) => more(l.seconds)],
  ], data.layouts, { top: TOP });
}

head();
growth();
ruleTable();
openTable();
layoutTable();
const dearest = kernels.filter((k) => !k.constant).sort((a, b) => b.seconds - a.seconds)[0];
chosen = dearest?.class ?? data.results[0]?.class ?? 0;
kernelTable();
if (classes.length) choose(chosen, false);
else $("detail").hidden = true;
$("query").addEventListener("input", search);
$("query").addEventListener("keydown", (e) => {
  if (e.key !== "Enter") return;
  const [first] = search();
  if (first) take(first);
});
$("closer").addEventListener("click", () => zoom(0.7));
$("wider").addEventListener("click", () => zoom(1 / 0.7));
$("whole").addEventListener("click", () => {
  view = { ...whole };
  show();
});
for (const id of ["steps", "only"]) $(id).addEventListener("change", picture);
addEventListener("resize", picture);
