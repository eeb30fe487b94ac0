// Learning curves

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
