// Importance

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

// Lineage

const ways = {
  warm: { tip: "cloned with the weights of", dashes: "none", note: n => `${count(n, "clone")} with the weights of another trial (solid)` },
  cold: { tip: "cloned, with weights of its own, from", dashes: "1 3", note: n => `${count(n, "clone")} with new weights (dotted)` },
  later: { tip: "took over the State of", dashes: "4 3", note: n => `${count(n, "State")} taken over on the way (dashed)` },
};

function lineage() {
  const links = [];
  for (const trial of trials) {
    if (trial.parent !== null) links.push([trial.parent, trial.id, trial.started, trial.cold ? ways.cold : ways.warm]);
    for (const [at, source] of trial.exploits) links.push([source, trial.id, at, ways.later]);
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
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Which trials came from which" });
  for (const at of timeTicks(data.start, data.end, Math.max(2, Math.min(6, (right - left) / 80)))) {
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
    const arrow = shape("path", { d: `M${px} ${from}C${px + bend} ${from} ${px + bend} ${to} ${px} ${to}`, fill: "none", stroke: "var(--text)", "stroke-width": 1.3, "stroke-opacity": links.length > 40 ? 0.45 : 1, "stroke-dasharray": how.dashes });
    const end = shape("circle", { cx: px, cy: to, r: 4, fill: "var(--card)", stroke: "var(--text)", "stroke-width": 1.5 });
    end.onmousemove = event => { hover(taker); showTip(event, label(taker), `${how.tip} ${label(source)} at ${seconds(at)}`); };
    end.onmouseleave = () => { hover(null); hideTip(); };
    svg.append(arrow, end);
  }
  mark(svg, nodes);
  holder.replaceChildren(svg);
  const notes = Object.values(ways).map(way => [way, links.filter(([, , , how]) => how === way).length]).filter(([, n]) => n);
  $("#lineage .note").textContent = `${notes.map(([way, n]) => way.note(n)).join(", ")}.`;
}
