const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, within = document) => within.querySelector(selector);
const trials = data.trials;
const trialOf = new Map(trials.map(trial => [trial.id, trial]));
const label = id => `trial-${id}`;

// Text: everything of the experiment goes through textContent, never through markup.

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const shape = (name, attributes = {}, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const number = value => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (value === 0 || Number.isInteger(value) && size < 1e6) return String(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(4)));
};
const value = parameter =>
  parameter === null ? "not set"
    : typeof parameter === "number" ? number(Number(parameter.toPrecision(3)))
      : Array.isArray(parameter) ? `[${parameter.map(value).join(", ")}]` : String(parameter);
const seconds = time => {
  if (time > 0 && time < .1) return `${Number((1000 * time).toPrecision(3))} ms`;
  if (time < 60) return `${Number(time.toFixed(time < 10 ? 2 : 1))} s`;
  const whole = Math.round(time), pad = part => String(part).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)} h` : `${minutes}:${pad(whole % 60)} min`;
};
const bytes = count => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit + 1 < units.length) { count /= 1024; unit += 1; }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
};
const count = (n, thing) => `${n.toLocaleString("en")} ${thing}${n === 1 ? "" : "s"}`;

// Order and colours: by rank, so that one outlier does not take all the colours.

const order = (a, b) => (a === null) - (b === null) || (data.maximize ? b - a : a - b);
const best = trial => trial.best ? trial.best[0] : null;
const ranked = [...trials].sort((a, b) => order(best(a), best(b)) || a.id - b.id);
const valued = ranked.filter(trial => best(trial) !== null).length;
ranked.forEach((trial, index) => {
  trial.rank = index + 1;
  trial.place = best(trial) === null ? 1 : valued > 1 ? index / (valued - 1) : 0;
});
let style;
const variable = name => style.getPropertyValue(name).trim();
const channels = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
const scaled = place => {
  const at = Math.min(place * 4, 3.999), stop = Math.floor(at), share = at - stop;
  const [from, to] = [stop, stop + 1].map(index => channels(variable(`--scale-${index}`)));
  return `rgb(${from.map((c, i) => Math.round(c + (to[i] - c) * share)).join(" ")})`;
};
/** A hue of its own for each trial, none of them red, which is for faults; by the golden section,
 *  neighbours in number are far apart in hue. */
const hue = id =>
  `hsl(${25 + 310 * (id * .618034 % 1)} ${variable("--trial-saturation")} ${variable("--trial-lightness")})`;

// Pointing at a trial anywhere shows it everywhere; a click keeps it.

let pinned = null, hovered = null, kept = null;
const watchers = [];
const focused = () => hovered ?? pinned;
const tell = () => watchers.forEach(watch => watch(focused()));
const hover = id => { if (id !== hovered) { hovered = id; tell(); } };
const pin = id => { pinned = pinned === id ? null : id; tell(); };
const keep = set => { kept = set; tell(); };
const mark = (root, nodes) => watchers.push(id => {
  root.classList.toggle("focused", id !== null && nodes.has(id));
  nodes.forEach((node, of) => {
    node.classList.toggle("on", of === id);
    node.classList.toggle("out", kept !== null && !kept.has(of));
  });
  // SVG paints in document order: what is pointed at comes last.
  if (root.tagName === "svg" && nodes.has(id)) nodes.get(id).parentNode.append(nodes.get(id));
});

const tip = $("#tip");
const showTip = (event, title, text) => {
  tip.replaceChildren(element("b", {}, title), `\n${text}`);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth ? event.clientX - 16 - width : event.clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 8))}px`;
};
const hideTip = () => { tip.hidden = true; };
const describe = trial => {
  const lines = data.parameters
    .map((name, index) => [name, trial.config[index]])
    .filter(([, set]) => set !== null)
    .map(([name, set]) => `${name} = ${value(set)}`);
  if (trial.best) lines.unshift(`best ${data.metric} ${number(best(trial))} in epoch ${trial.best[1]}`);
  lines.unshift(trial.status + (trial.reason ? `: ${trial.reason}` : ""));
  return lines.join("\n");
};

// Axes

const ticks = (low, high, wanted) => {
  if (!(high > low)) return [low];
  const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(factor => factor * power >= raw) * power;
  const all = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) all.push(at * step);
  return all;
};
const timeTicks = (low, high, wanted) => {
  const steps = [60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400];
  const step = steps.find(step => (high - low) / step <= wanted);
  if (high - low <= 90 || !step) return ticks(low, high, wanted);
  return ticks(Math.ceil(low / step), Math.floor(high / step), (high - low) / step + 1).map(at => at * step);
};
const logTicks = (low, high) => {
  const all = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power += 1) all.push(10 ** power);
  return all.length > 1 ? all : [low, high];
};
const linear = (low, high, from, to) => {
  const span = high - low || 1;
  return at => high === low ? (from + to) / 2 : from + (at - low) / span * (to - from);
};
const logarithmic = (low, high, from, to) => {
  const map = linear(Math.log(low), Math.log(high), from, to);
  return at => map(Math.log(at));
};
const quantile = (sorted, share) => sorted[Math.round(share * (sorted.length - 1))];
