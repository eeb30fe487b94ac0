"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, within = document) => within.querySelector(selector);
  const trials = data.trials;
  const trialOf = new Map(trials.map(trial => [trial.id, trial]));
  const label = id => `trial-${id}`;

  // ---- Text: everything of the experiment goes through textContent, never through markup.

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

  // ---- Order and colours: by rank, so that one outlier does not take all the colours.

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
  /** A hue of its own for each trial: neighbours in number are far apart in hue. */
  const hue = id =>
    `hsl(${(id * 137.508) % 360} ${variable("--trial-saturation")} ${variable("--trial-lightness")})`;

  // ---- Pointing at a trial anywhere shows it everywhere; a click keeps it.

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

  // ---- Axes

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

  // ---- Head

  const figures = data.figures;
  function head() {
    const outcome = element("span", { class: `outcome ${figures.outcome}` }, figures.outcome);
    $("#name").append(data.name || "Experiment", outcome);
    const sets = data.data;
    $("#subtitle").textContent = !data.workers.length ? "The workers are not ready yet." : [
      `${data.maximize ? "highest" : "lowest"} validation ${data.metric} wins`,
      `${count(sets.train_rows, "training row")} in ${count(sets.train_partitions, "partition")}`,
      `${count(sets.validation_rows, "validation row")} in ${count(sets.validation_partitions, "partition")}`,
      bytes(sets.bytes), `${count(data.workers.length, "worker")}`, `seed ${data.seed}`,
    ].join("  ·  ");
    const computing = figures.training + figures.validating;
    const share = part => `${(100 * (computing ? part / computing : 0)).toFixed(1)} %`;
    const figure = (title, strong, note, ...meter) => {
      const made = element("div", { class: "figure" }, element("h3", {}, title), element("strong", {}, strong));
      if (meter.length) {
        made.append(element("div", { class: "meter" },
          ...meter.map(part => element("i", { style: `width:${100 * Math.min(1, part)}%` }))));
      }
      made.append(element("span", {}, note));
      return made;
    };
    const faults = figures.retried_units + figures.repeated_units + figures.lost_workers;
    $("#figures").append(
      figure(`Best ${data.metric}`, figures.best ? number(figures.best[1]) : "–",
        figures.best ? `${label(figures.best[0])}, epoch ${figures.best[2]}` : "no epoch completed yet"),
      figure("Trials", String(trials.length + data.trials_left_out),
        `${figures.completed} completed, ${figures.stopped} stopped, ${figures.failed} failed`),
      figure("Wall time", seconds(figures.wall), `and ${seconds(figures.loading)} to load the data`),
      figure("Utilisation", `${(100 * figures.utilisation).toFixed(1)} %`,
        `of ${count(figures.slots, "slot")} × wall time`, figures.utilisation),
      figure("Training", share(figures.training),
        `${seconds(figures.training)}, validation ${seconds(figures.validating)}`,
        computing ? figures.training / computing : 0, computing ? figures.validating / computing : 0),
      figure("Units", (figures.train_units + figures.validation_units).toLocaleString("en"),
        `${figures.train_units.toLocaleString("en")} training, ${figures.validation_units.toLocaleString("en")} validation`),
      figure("Hops", figures.hops.toLocaleString("en"),
        figures.hop_bytes || data.finished ? `${bytes(figures.hop_bytes)} of States` : "of States"),
      figure("Faults", String(faults),
        `${figures.retried_units} retried, ${figures.repeated_units} repeated, ${count(figures.lost_workers, "worker")} lost`));
  }

  function troubles() {
    const items = [];
    for (const trial of trials) if (trial.reason) items.push([label(trial.id), trial.reason, trial.id]);
    for (const worker of data.workers) {
      for (const [from, to, reason] of worker.absences) {
        items.push([`worker-${worker.id}`, `lost at ${seconds(from)}${to === null ? "" : `, back at ${seconds(to)}`}: ${reason}`]);
      }
    }
    for (const warning of figures.warnings) items.push(["warning", warning]);
    $("#troubles").hidden = items.length === 0;
    $("#troubles ul").append(...items.map(([who, what, id]) => {
      const item = element("li", {}, element("b", {}, who), ` ${what}`);
      if (id !== undefined) {
        item.onmouseenter = () => hover(id);
        item.onmouseleave = () => hover(null);
      }
      return item;
    }));
  }

  // ---- Leaderboard

  function leaderboard() {
    const column = (title, get, numeric, show = get) => ({ title, get, numeric, show });
    const columns = [
      column("#", trial => trial.rank, true),
      column("trial", trial => trial.id, false, trial => label(trial.id)),
      column(data.metric || "value", best, true, trial => number(best(trial))),
      column("epoch", trial => trial.best ? trial.best[1] : null, true),
      ...data.parameters.map((name, index) => column(name, trial => trial.config[index],
        trials.every(trial => trial.config[index] === null || typeof trial.config[index] === "number"),
        trial => trial.config[index] === null ? "" : value(trial.config[index]))),
      column("status", trial => trial.status, false),
      column("time", trial => (trial.ended ?? data.end) - trial.started, true,
        trial => seconds((trial.ended ?? data.end) - trial.started)),
    ];
    const rows = new Map(ranked.map(trial => {
      const row = element("tr", {}, ...columns.map(({ show, numeric, title }) => {
        const text = show(trial) ?? "";
        const cell = element("td", { class: numeric ? "number" : "", title: text }, String(text));
        if (title === "trial") cell.prepend(element("span", { class: "swatch", style: `background:${scaled(trial.place)}` }));
        if (title === "status") cell.classList.add(trial.status);
        return cell;
      }));
      row.onmouseenter = () => hover(trial.id);
      row.onmouseleave = () => { hover(null); hideTip(); };
      row.onmousemove = event => { if (trial.reason) showTip(event, label(trial.id), describe(trial)); };
      row.onclick = () => pin(trial.id);
      return [trial.id, row];
    }));
    const body = $("#leaderboard tbody"), heads = [];
    let by = 0, up = true;
    const sort = () => {
      const { get } = columns[by];
      const compare = (a, b) => {
        const [x, y] = [get(a), get(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        const less = typeof x === "number" && typeof y === "number" ? x - y : value(x).localeCompare(value(y), "en", { numeric: true });
        return (up ? less : -less) || a.rank - b.rank;
      };
      body.replaceChildren(...[...trials].sort(compare).map(trial => rows.get(trial.id)));
      heads.forEach((cell, index) => {
        if (index === by) cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        else cell.removeAttribute("aria-sort");
      });
    };
    columns.forEach(({ title, numeric }, index) => {
      const button = element("button", { type: "button" }, title);
      button.onclick = () => { up = by === index ? !up : true; by = index; sort(); };
      heads.push(element("th", { class: numeric ? "number" : "" }, button));
    });
    $("#leaderboard thead").replaceChildren(element("tr", {}, ...heads));
    sort();
    mark(body, rows);
    const left = data.trials_left_out;
    $("#leaderboard .note").textContent = left ? `and ${count(left, "other trial")} that did worse` : "Click a trial to keep it in sight.";
  }

  // ---- Learning curves

  function curves() {
    const select = $("#metric");
    if (!select.options.length) {
      data.metrics.forEach((name, index) => select.add(new Option(name, index, index === data.objective, index === data.objective)));
      for (const control of [select, $("#by"), $("#log")]) control.onchange = render;
    }
    const holder = $("#curves .chart");
    const column = Number(select.value) + 2, time = $("#by").value === "time";
    const points = [];
    for (const trial of trials) {
      for (const row of trial.curve) {
        const y = row[column];
        points.push({ trial, epoch: row[0], x: time ? row[1] : row[0], y: y ?? null });
      }
    }
    const known = points.filter(point => point.y !== null).map(point => point.y).sort((a, b) => a - b);
    if (!known.length) {
      holder.replaceChildren(element("p", { class: "note" }, "No epoch has completed yet."));
      return;
    }
    const log = $("#log").checked && known[0] > 0;
    let [low, high] = [known[0], known[known.length - 1]];
    const [inner, outer] = [quantile(known, .05), quantile(known, .95)];
    // A few diverged trials must not flatten all the others.
    if (!log && outer > inner && high - low > 4 * (outer - inner)) {
      low = Math.max(low, inner - (outer - inner) / 2);
      high = Math.min(high, outer + (outer - inner) / 2);
    }
    const width = holder.clientWidth, height = 366, left = 52, right = width - 12, top = 8, bottom = height - 36;
    const xs = points.map(point => point.x);
    const first = time ? data.start : 1, last = xs.reduce((a, b) => Math.max(a, b));
    const x = linear(first, last, left + 8, right), y = (log ? logarithmic : linear)(low, high, bottom, top);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${data.metrics[column - 2]} by ${time ? "time" : "epoch"} for each trial` });
    for (const at of log ? logTicks(low, high) : ticks(low, high, 6)) {
      svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: y(at), y2: y(at) }),
        shape("text", { x: left - 8, y: y(at) + 4, "text-anchor": "end" }, number(at)));
    }
    const marks = time ? timeTicks(first, last, 8) : ticks(first, last, Math.min(10, last)).filter(Number.isInteger);
    for (const at of marks) {
      svg.append(shape("text", { x: x(at), y: bottom + 18, "text-anchor": "middle" }, time ? seconds(at) : number(at)));
    }
    svg.append(shape("text", { x: right, y: bottom + 33, "text-anchor": "end" }, time ? "time" : "epoch"));
    const clip = shape("clipPath", { id: "inside" });
    clip.append(shape("rect", { x: left, y: top - 4, width: right - left + 6, height: bottom - top + 8 }));
    const group = shape("g", { "clip-path": "url(#inside)" });
    svg.append(clip, group);
    const nodes = new Map();
    for (const trial of [...ranked].reverse()) {
      let path = "", pen = false;
      const drawn = row => row !== undefined && (row[column] ?? null) !== null && !(log && row[column] <= 0);
      trial.curve.forEach((row, index) => {
        if (!drawn(row)) { pen = false; return; }
        const [px, py] = [x(time ? row[1] : row[0]).toFixed(1), y(row[column]).toFixed(1)];
        path += `${pen ? "L" : "M"}${px} ${py}`;
        // A dash where there is no line to this point nor from it.
        if (!pen && !drawn(trial.curve[index + 1])) path += "m-4 0h8m-4 0";
        pen = true;
      });
      if (!path) continue;
      const line = shape("path", { class: "trial", d: path, stroke: scaled(trial.place), "stroke-linecap": "round", "stroke-linejoin": "round" });
      nodes.set(trial.id, line);
      group.append(line);
    }
    const dot = shape("circle", { class: "dot", r: 4.5, visibility: "hidden" });
    svg.append(dot);
    mark(svg, nodes);
    const shown = points.filter(point => point.y !== null && !(log && point.y <= 0));
    svg.onmousemove = event => {
      const box = svg.getBoundingClientRect(), [mx, my] = [event.clientX - box.left, event.clientY - box.top];
      let near = null, least = 40 * 40;
      for (const point of shown) {
        if (kept && !kept.has(point.trial.id)) continue;
        const distance = (x(point.x) - mx) ** 2 + (y(point.y) - my) ** 2;
        if (distance < least) [near, least] = [point, distance];
      }
      hover(near ? near.trial.id : null);
      dot.setAttribute("visibility", near ? "visible" : "hidden");
      svg.style.cursor = near ? "pointer" : "default";
      if (!near) return hideTip();
      for (const [key, at] of [["cx", x(near.x)], ["cy", y(near.y)], ["fill", scaled(near.trial.place)]]) dot.setAttribute(key, at);
      showTip(event, `${label(near.trial.id)}  ${number(near.y)}`,
        `${data.metrics[column - 2]} after epoch ${near.epoch}\n\n${describe(near.trial)}`);
    };
    svg.onmouseleave = () => { hover(null); hideTip(); dot.setAttribute("visibility", "hidden"); };
    svg.onclick = () => { if (hovered !== null) pin(hovered); };
    holder.replaceChildren(svg);
  }

  // ---- Parallel coordinates

  const ranges = new Map();

  function parallel() {
    const holder = $("#parallel .chart");
    const axes = data.parameters
      .map((name, index) => ({ name, get: trial => trial.config[index] }))
      .filter(({ get }) => new Set(trials.map(trial => JSON.stringify(get(trial)))).size > 1);
    const values = ranked.filter(trial => best(trial) !== null);
    $("#parallel").hidden = !axes.length || values.length < 2;
    if ($("#parallel").hidden) return;
    axes.push({ name: `best ${data.metric}`, get: best, last: true });
    const width = holder.clientWidth, height = 340, top = 34, bottom = height - 34, side = 70;
    const x = linear(0, axes.length - 1, side, width - side);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Hyperparameters of each trial and its best value" });
    for (const axis of axes) {
      const known = values.map(axis.get).filter(value => value !== null);
      const absent = known.length < values.length;
      const floor = absent ? bottom - 26 : bottom;
      if (known.every(value => typeof value === "number")) {
        const sorted = [...known].sort((a, b) => a - b);
        let [low, high] = [sorted[0], sorted[sorted.length - 1]];
        if (axis.last) {
          // The worst may be far off: the axis ends where nine of ten trials lie, and a bit more.
          const most = Math.abs(quantile(sorted, data.maximize ? .1 : .9) - (data.maximize ? high : low)) * 1.6;
          if (most > 0) [low, high] = data.maximize ? [Math.max(low, high - most), high] : [low, Math.min(high, low + most)];
        }
        const log = !axis.last && low > 0 && high / low >= 50;
        const map = (log ? logarithmic : linear)(low, high, floor, top);
        axis.at = value => Math.min(floor, Math.max(top, map(value)));
        axis.ticks = (log ? logTicks(low, high) : ticks(low, high, 6)).map(at => [map(at), number(at)]);
      } else {
        const kinds = [...new Set(known.map(value))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
        const map = linear(0, kinds.length - 1, floor, top);
        axis.at = one => map(kinds.indexOf(value(one)));
        axis.ticks = kinds.map((kind, index) => [map(index), kind.length > 16 ? `${kind.slice(0, 15)}…` : kind]);
        const sparse = Math.ceil(axis.ticks.length / 18);
        axis.ticks = axis.ticks.filter((_, index) => index % sparse === 0);
      }
      axis.y = trial => axis.get(trial) === null ? bottom : axis.at(axis.get(trial));
      if (absent) axis.ticks.push([bottom, "not set"]);
    }
    const lines = shape("g"), nodes = new Map();
    for (const trial of [...values].reverse()) {
      const path = axes.map((axis, index) => {
        const [px, py] = [x(index), axis.y(trial)];
        if (index === 0) return `M${px.toFixed(1)} ${py.toFixed(1)}`;
        const [fromX, fromY] = [x(index - 1), axes[index - 1].y(trial)], half = (fromX + px) / 2;
        return `C${half.toFixed(1)} ${fromY.toFixed(1)} ${half.toFixed(1)} ${py.toFixed(1)} ${px.toFixed(1)} ${py.toFixed(1)}`;
      }).join("");
      const line = shape("path", { class: "trial", d: path, stroke: scaled(trial.place) });
      line.onmousemove = event => { hover(trial.id); showTip(event, label(trial.id), describe(trial)); };
      line.onmouseleave = () => { hover(null); hideTip(); };
      line.onclick = () => pin(trial.id);
      nodes.set(trial.id, line);
      lines.append(line);
    }
    svg.append(lines);
    const apply = () => {
      if (!ranges.size) return keep(null);
      const inside = trial => axes.every(axis => {
        const range = ranges.get(axis.name);
        return !range || axis.y(trial) >= range[0] && axis.y(trial) <= range[1];
      });
      keep(new Set(values.filter(inside).map(trial => trial.id)));
    };
    axes.forEach((axis, index) => {
      const px = x(index), room = Math.max(6, Math.floor((x(1) - x(0)) / 7));
      const long = axis.name.length > room ? `${axis.name.slice(0, room - 1)}…` : axis.name;
      svg.append(shape("line", { class: "axis", x1: px, x2: px, y1: top, y2: bottom }),
        shape("text", { class: "strong", x: px, y: 14, "text-anchor": "middle" }, long));
      for (const [py, text] of axis.ticks) {
        const wide = 6.3 * text.length + 4;
        svg.append(shape("line", { class: "axis", x1: px - 3, x2: px + 3, y1: py, y2: py }),
          shape("rect", { class: "plate", x: axis.last ? px + 6 : px - 5 - wide, y: py - 8, width: wide, height: 16, rx: 3 }),
          shape("text", { x: px + (axis.last ? 8 : -7), y: py + 4, "text-anchor": axis.last ? "start" : "end", class: "tick" }, text));
      }
      const range = shape("rect", { class: "range", x: px - 7, width: 14, rx: 3 });
      const draw = () => {
        const [from, to] = ranges.get(axis.name) ?? [0, 0];
        range.setAttribute("y", from);
        range.setAttribute("height", to - from);
        range.setAttribute("visibility", to > from ? "visible" : "hidden");
      };
      const brush = shape("rect", { class: "brush", x: px - 10, width: 20, y: top - 8, height: bottom - top + 16 });
      let from = null;
      const at = event => event.clientY - svg.getBoundingClientRect().top;
      brush.onpointerdown = event => { brush.setPointerCapture(event.pointerId); from = at(event); ranges.delete(axis.name); draw(); apply(); };
      brush.onpointermove = event => {
        if (from === null) return;
        const [low, high] = [from, at(event)].sort((a, b) => a - b);
        if (high - low > 4) { ranges.set(axis.name, [low, high]); draw(); apply(); }
      };
      brush.onpointerup = () => { from = null; };
      draw();
      svg.append(range, brush);
    });
    mark(svg, nodes);
    holder.replaceChildren(svg);
  }

  // ---- Schedule

  const bars = [];
  {
    const columns = data.bar_columns, width = columns.length;
    for (let at = 0; at < data.bars.length; at += width) {
      const bar = {};
      columns.forEach((name, index) => { bar[name] = data.bars[at + index]; });
      bar.from /= 1000;
      bar.took /= 1000;
      bar.hopped = bar.end >= 4;
      bar.end %= 4;
      bars.push(bar);
    }
  }
  let view = null;

  function schedule() {
    const canvas = $("#schedule canvas"), holder = $("#schedule .chart");
    $("#schedule").hidden = !data.workers.length;
    if (!data.workers.length) return;
    const legend = [["training", ""], ["validation (lower half)", "validation"], ["loading data", "loading"],
      ["idle", "idle"], ["failed or lost unit", "fault"], ["worker away", "away"]];
    $("#schedule .legend").replaceChildren(...legend.map(([text, kind]) => element("span", {}, element("i", { class: kind }), text)));
    const end = data.bars_left_out ? bars.reduce((last, bar) => Math.max(last, bar.from + bar.took), 0) : data.end;
    const whole = [0, Math.max(end, .001)];
    view ??= whole;
    const lanes = new Map(), labels = [];
    const total = data.workers.reduce((sum, worker) => sum + worker.lanes, 0);
    const tall = total <= 12 ? 26 : total <= 40 ? 18 : total <= 120 ? 10 : 5;
    let y = 4;
    for (const worker of data.workers) {
      labels.push({ worker, y, height: worker.lanes * tall });
      for (let lane = 0; lane < worker.lanes; lane += 1) {
        lanes.set(`${worker.id}/${lane}`, { y, worker, bars: [] });
        y += tall;
      }
      y += tall > 8 ? 6 : 2;
    }
    for (const bar of bars) lanes.get(`${bar.worker}/${bar.lane}`)?.bars.push(bar);
    for (const lane of lanes.values()) lane.bars.sort((a, b) => a.from - b.from);
    const busy = new Map();
    for (const bar of bars) if (bar.end === 0) busy.set(bar.worker, (busy.get(bar.worker) ?? 0) + bar.took);
    const width = holder.clientWidth, height = y + 26, left = 128, right = width - 52;
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const font = getComputedStyle(document.body).fontFamily;
    let select = null;
    const stripes = (x0, y0, w, h, color) => {
      pen.save();
      pen.beginPath();
      pen.rect(x0, y0, w, h);
      pen.clip();
      pen.strokeStyle = color;
      pen.lineWidth = 1;
      pen.beginPath();
      for (let at = x0 - h; at < x0 + w; at += 7) { pen.moveTo(at, y0 + h); pen.lineTo(at + h, y0); }
      pen.stroke();
      pen.restore();
    };
    const paint = () => {
      const x = linear(view[0], view[1], left, right), id = focused();
      const clipped = (from, to) => [Math.max(left, x(from)), Math.min(right, x(to))];
      pen.clearRect(0, 0, width, height);
      pen.font = `11px ${font}`;
      pen.textBaseline = "middle";
      for (const at of timeTicks(view[0], view[1], Math.max(4, width / 130))) {
        pen.fillStyle = variable("--grid");
        pen.fillRect(Math.round(x(at)), 0, 1, height - 22);
        pen.fillStyle = variable("--soft");
        pen.textAlign = "center";
        pen.fillText(seconds(at), x(at), height - 10);
      }
      for (const { worker, y, height } of labels) {
        pen.fillStyle = variable("--idle");
        pen.fillRect(left, y, right - left, height - 1);
        for (const [from, to] of worker.absences) {
          const [x0, x1] = clipped(from, to ?? data.end);
          if (x1 <= x0) continue;
          pen.fillStyle = variable("--bad-soft");
          pen.fillRect(x0, y, x1 - x0, height - 1);
          stripes(x0, y, x1 - x0, height - 1, variable("--bad"));
        }
        if (tall > 8) {
          pen.textAlign = "left";
          pen.fillStyle = variable("--text");
          const name = `worker-${worker.id}`;
          pen.fillText(name, 0, y + height / 2 - (height > 25 ? 6 : 0), left - 8);
          if (height > 25) {
            pen.fillStyle = variable("--soft");
            const host = worker.name === name ? worker.device : `${worker.name} · ${worker.device}`;
            pen.fillText(host.length > 20 ? `${host.slice(0, 19)}…` : host, 0, y + height / 2 + 8, left - 8);
          }
          pen.textAlign = "right";
          pen.fillStyle = variable("--soft");
          const share = (busy.get(worker.id) ?? 0) / Math.max(1e-9, (data.end - data.start) * worker.lanes);
          pen.fillText(data.bars_left_out ? "" : `${(100 * Math.min(1, share)).toFixed(0)} %`, width, y + height / 2);
        }
      }
      pen.fillStyle = variable("--soft");
      pen.globalAlpha = .4;
      for (const [worker, , from, to] of data.loads) {
        const lane = lanes.get(`${worker}/0`), [x0, x1] = clipped(from, to);
        if (lane && x1 > x0) pen.fillRect(x0, lane.y + tall * .5, Math.max(.6, x1 - x0 - .6), tall * .5 - 1.5);
      }
      for (const lane of lanes.values()) {
        for (const bar of lane.bars) {
          const [x0, x1] = clipped(bar.from, bar.from + bar.took);
          if (x1 < left || x0 > right || bar.from > view[1] || bar.from + bar.took < view[0]) continue;
          const wide = Math.max(.7, x1 - x0 - (x1 - x0 > 3 ? .8 : 0));
          const [y0, h] = bar.validation ? [lane.y + tall * .52, tall * .48 - 1.5] : [lane.y + 1, tall - 2.5];
          pen.globalAlpha = id === null ? kept && !kept.has(bar.trial) ? .12 : 1 : bar.trial === id ? 1 : .13;
          pen.fillStyle = hue(bar.trial);
          if (bar.end === 3) pen.globalAlpha *= .6;
          if (bar.end === 1 || bar.end === 2) {
            pen.fillStyle = variable("--bad-soft");
            pen.fillRect(x0, y0, wide, h);
            pen.strokeStyle = variable("--bad");
            pen.lineWidth = 1.5;
            pen.strokeRect(x0 + .75, y0 + .75, Math.max(.5, wide - 1.5), h - 1.5);
            if (wide > 6) {
              pen.beginPath();
              pen.moveTo(x0 + 1, y0 + h - 1);
              pen.lineTo(x0 + wide - 1, y0 + 1);
              pen.stroke();
            }
            continue;
          }
          pen.fillRect(x0, y0, wide, h);
          if (wide > 26 && h > 14) {
            pen.fillStyle = "#fff";
            pen.textAlign = "center";
            pen.fillText(String(bar.trial), x0 + wide / 2, y0 + h / 2 + .5, wide - 4);
          }
        }
      }
      pen.globalAlpha = 1;
      if (select) {
        pen.fillStyle = variable("--accent");
        pen.globalAlpha = .18;
        pen.fillRect(Math.min(...select), 0, Math.abs(select[1] - select[0]), height - 22);
        pen.globalAlpha = 1;
      }
      $("#reset").hidden = view[0] === whole[0] && view[1] === whole[1];
    };
    const place = event => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const time = px => view[0] + (Math.min(right, Math.max(left, px)) - left) / (right - left) * (view[1] - view[0]);
    canvas.onmousemove = event => {
      const [px, py] = place(event);
      if (select) { select[1] = Math.min(right, Math.max(left, px)); return paint(); }
      const lane = [...lanes.values()].find(lane => py >= lane.y && py < lane.y + tall);
      const at = time(px), near = (view[1] - view[0]) / (right - left);
      const inside = px >= left && px <= right;
      const bar = inside && lane?.bars.find(bar => at >= bar.from - near && at <= bar.from + bar.took + near);
      const away = inside && lane?.worker.absences.find(([from, to]) => at >= from && at <= (to ?? data.end));
      hover(bar ? bar.trial : null);
      if (bar) {
        const end = ["", "failed", "lost with its worker", "not completed"][bar.end];
        showTip(event, `${label(bar.trial)}, epoch ${bar.epoch}`,
          `${bar.validation ? "validates on" : "trains on"} partition-${bar.partition}, worker-${bar.worker}\n` +
          `${seconds(bar.from)} + ${seconds(bar.took)}${bar.hopped ? ", hopped here" : ""}${end ? `\n${end}` : ""}` +
          (trialOf.has(bar.trial) ? `\n\n${describe(trialOf.get(bar.trial))}` : ""));
      } else if (away) {
        showTip(event, `worker-${lane.worker.id} away`, `lost at ${seconds(away[0])}: ${away[2]}`);
      } else {
        hideTip();
      }
    };
    canvas.onmouseleave = () => { hover(null); hideTip(); };
    canvas.onmousedown = event => { const [px] = place(event); if (px >= left && px <= right) select = [px, px]; };
    const release = () => {
      if (!select) return;
      const [from, to] = select.map(time).sort((a, b) => a - b), moved = Math.abs(select[1] - select[0]);
      select = null;
      if (moved > 5) view = [from, to];
      else if (hovered !== null) pin(hovered);
      paint();
    };
    canvas.onmouseup = release;
    canvas.ondblclick = () => { view = whole; paint(); };
    $("#reset").onclick = () => { view = whole; paint(); };
    watchers.push(paint);
    const left_out = data.bars_left_out;
    $("#schedule > .note").textContent = "A colour per trial; at the right, how much of the time each worker ran units. Drag to look closer." +
      (left_out ? ` Shown are the first ${count(bars.length, "unit")}; ${count(left_out, "later one")} would make this page too large.` : "");
    paint();
  }

  // ---- Importance

  function importance() {
    const all = data.importance;
    $("#importance").hidden = !all.length;
    const holder = $("#importance .rows");
    holder.replaceChildren(...all.flatMap(({ name, share, chance, groups }) => {
      const width = 180, height = 34, known = groups.map(group => group[2]).filter(median => median !== null);
      const [low, high] = [Math.min(...known), Math.max(...known)];
      const x = linear(0, groups.length - 1, 8, width - 8), y = linear(low, high, height - 6, 6);
      const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height });
      const seen = groups.map((group, index) => [index, group[2]]).filter(([, median]) => median !== null);
      svg.append(shape("polyline", { points: seen.map(([index, median]) => `${x(index)},${y(median)}`).join(" "), fill: "none", stroke: "var(--soft)", "stroke-opacity": .5 }));
      groups.forEach(([text, size, median], index) => {
        const dot = shape("circle", { cx: x(index), cy: median === null ? height - 6 : y(median), r: 4, fill: median === null ? "var(--bad)" : "var(--accent)", stroke: "var(--card)" });
        dot.onmousemove = event => showTip(event, `${name} ${text}`, `${count(size, "trial")}, median of best ${data.metric}: ${number(median)}`);
        dot.onmouseleave = hideTip;
        svg.append(dot);
      });
      const track = element("div", { class: "track" },
        element("i", { style: `width:${100 * share}%` }), element("u", { style: `left:${100 * Math.min(1, chance)}%` }));
      return [element("span", { class: "name", title: name }, name), track,
        element("span", { class: "number" }, `${(100 * share).toFixed(0)} %`), svg];
    }));
    $("#importance .note").textContent =
      "How much of the variance of the trials' ranks each hyperparameter explains alone (Kruskal-Wallis effect size " +
      "over groups of equal or similar values). Below the dotted mark it may be chance. Combined effects are not seen, and " +
      "a search that looks where results are good narrows what can be seen. Right: the median of the best values per group.";
  }

  // ---- Lineage

  function lineage() {
    const links = [];
    for (const trial of trials) {
      if (trial.parent !== null) links.push([trial.parent, trial.id, trial.started, "cloned from"]);
      for (const [at, source] of trial.exploits) links.push([source, trial.id, at, "took over the State of"]);
    }
    const members = [...new Set(links.flatMap(([source, taker]) => [source, taker]))].filter(id => trialOf.has(id));
    $("#lineage").hidden = !members.length;
    $("#importance").classList.toggle("wide", !members.length);
    if (!members.length) { return; }
    $("#lineage").classList.toggle("wide", !data.importance.length);
    members.sort((a, b) => a - b);
    const holder = $("#lineage .chart"), step = 20, top = 8, height = top + members.length * step + 26;
    const width = holder.clientWidth - 6, left = 66, right = width - 10;
    const x = linear(data.start, Math.max(data.end, data.start + .001), left, right);
    const y = new Map(members.map((id, index) => [id, top + (index + .5) * step]));
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Which trials took over the States of which" });
    for (const at of timeTicks(data.start, data.end, 6)) {
      svg.append(shape("line", { class: "grid", x1: x(at), x2: x(at), y1: top, y2: height - 22 }),
        shape("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, seconds(at)));
    }
    const nodes = new Map();
    for (const id of members) {
      const trial = trialOf.get(id);
      const line = shape("line", { class: "trial", x1: x(trial.started), x2: Math.max(x(trial.started) + 2, x(trial.ended ?? data.end)), y1: y.get(id), y2: y.get(id), stroke: scaled(trial.place), style: "stroke-width:4", "stroke-linecap": "round" });
      line.onmousemove = event => { hover(id); showTip(event, label(id), describe(trial)); };
      line.onmouseleave = () => { hover(null); hideTip(); };
      line.onclick = () => pin(id);
      nodes.set(id, line);
      svg.append(shape("text", { x: left - 10, y: y.get(id) + 4, "text-anchor": "end" }, label(id)), line);
    }
    for (const [source, taker, at, how] of links) {
      if (!y.has(source) || !y.has(taker)) continue;
      const [px, from, to] = [x(at), y.get(source), y.get(taker)], bend = Math.min(26, 6 + Math.abs(to - from) / 5);
      const arrow = shape("path", { d: `M${px} ${from}C${px + bend} ${from} ${px + bend} ${to} ${px} ${to}`, fill: "none", stroke: "var(--text)", "stroke-width": 1.3, "stroke-dasharray": how === "cloned from" ? "none" : "3 2" });
      const end = shape("circle", { cx: px, cy: to, r: 4, fill: "var(--card)", stroke: "var(--text)", "stroke-width": 1.5 });
      end.onmousemove = event => { hover(taker); showTip(event, label(taker), `${how} ${label(source)} at ${seconds(at)}`); };
      end.onmouseleave = () => { hover(null); hideTip(); };
      svg.append(arrow, end);
    }
    mark(svg, nodes);
    holder.replaceChildren(svg);
    $("#lineage .note").textContent = `${count(links.length, "time")} a trial took over the State of another: as a clone (solid) or on the way (dashed).`;
  }

  // ---- All together; again when the width or the colours change.

  function render() {
    style = getComputedStyle(document.documentElement);
    watchers.length = 0;
    leaderboard();
    curves();
    parallel();
    schedule();
    importance();
    lineage();
    tell();
  }
  // Many lines become one area unless each is thin ink.
  document.body.style.setProperty("--ink", trials.length > 400 ? .4 : trials.length > 100 ? .65 : .85);
  head();
  troubles();
  render();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; ranges.clear(); kept = null; render(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
})();
