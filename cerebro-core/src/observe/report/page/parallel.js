// Parallel coordinates

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
  const height = 340, top = 34, bottom = height - 34, side = 70;
  // Axes that would stand too close are scrolled to.
  const width = Math.max(holder.clientWidth, 2 * side + 80 * (axes.length - 1));
  const x = linear(0, axes.length - 1, side, width - side);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, style: `min-width: ${width}px`, role: "img", "aria-label": "Hyperparameters of each trial and its best value" });
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
