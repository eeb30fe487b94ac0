// Schedule

const bars = [];
{
  const columns = data.bar_columns, width = columns.length;
  for (let at = 0; at < data.bars.length; at += width) {
    const bar = {};
    columns.forEach((name, index) => { bar[name] = data.bars[at + index]; });
    for (const time of ["from", "took", "computed"]) bar[time] /= data.bar_ticks;
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
    for (const at of timeTicks(view[0], view[1], Math.max(2, (right - left) / 110))) {
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
        const share = worker.computed / Math.max(1e-9, (data.end - data.start) * worker.lanes);
        pen.fillText(`${(100 * Math.min(1, share)).toFixed(0)} %`, width, y + height / 2);
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
    pen.fillStyle = variable("--text");
    for (const at of data.resumed) {
      if (at < view[0] || at > view[1]) continue;
      for (let dash = 0; dash < height - 22; dash += 7) pen.fillRect(Math.round(x(at)), dash, 1, 4);
    }
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
        `at ${seconds(bar.from)} for ${seconds(bar.took)}${bar.end ? "" : `, of which ${seconds(bar.computed)} computing`}` +
        `${bar.hopped ? "\nits State hopped here" : ""}${end ? `\n${end}` : ""}` +
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
  $("#schedule > .note").textContent = "A colour per trial; at the right, how much of the time models computed on each worker. Drag to look closer." +
    (left_out ? ` Shown are the first ${count(bars.length, "unit")}; ${count(left_out, "later one")} would make this page too large.` : "") +
    (data.resumed.length ? " At a dashed line the experiment was resumed." : "") +
    (data.unseen_epochs ? ` Nothing is known of the units of ${count(data.unseen_epochs, "epoch")} that ${data.unseen_epochs === 1 ? "was" : "were"} complete by then: the schedule begins after them, and curves by time show them at the line.` : "");
  paint();
}
