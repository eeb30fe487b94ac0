// Head

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
    ...data.resumed.length ? [`resumed ${count(data.resumed.length, "time")}: time, units, hops and faults are those of the last run`] : [],
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

// Leaderboard

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
