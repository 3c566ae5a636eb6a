// What the pages share. A page draws what stands in the element `data` and asks nothing of anybody.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

// Numbers for people.
const digits = (x, n = 3) => (x === 0 ? "0" : Math.abs(x) >= 100 ? x.toFixed(0) : Number(x.toPrecision(n)).toString());
const scaled = (x, units) => {
  let [at, value] = [0, x];
  while (at + 1 < units.length && Math.abs(value) >= 1000) [value, at] = [value / 1000, at + 1];
  return `${digits(value)} ${units[at]}`;
};
const time = (s) => scaled(s * 1e9, ["ns", "µs", "ms", "s"]);
const count = (x, unit) => scaled(x, [unit, `k${unit}`, `M${unit}`, `G${unit}`, `T${unit}`]);
const percent = (x) => `${digits(100 * x)} %`;
const or = (x, show) => (x === null || x === undefined ? "–" : show(x));

const el = (tag, attributes = {}, ...children) => {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
};
const svg = (tag, attributes = {}, text) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
};
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The tooltip.
const tip = (event, text) => {
  const t = $("tip");
  t.hidden = !text;
  if (!text) return;
  t.textContent = text;
  const { width, height } = t.getBoundingClientRect();
  t.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  t.style.top = `${event.clientY + height + 24 > innerHeight ? event.clientY - height - 10 : event.clientY + 16}px`;
};
const untip = () => ($("tip").hidden = true);

// Pairs of a title and a value.
const facts = (list, pairs) => list.replaceChildren(...pairs.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))));

// What a click does, the keyboard does as well.
const onChoose = (element, act) => {
  element.addEventListener("click", act);
  element.addEventListener("keydown", (e) => {
    if (e.key === "Enter" || e.key === " ") {
      e.preventDefault();
      act();
    }
  });
};
