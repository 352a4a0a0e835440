"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = new Map(data.candidates.map((c) => [c.id, c]));
  const $ = (id) => document.getElementById(id);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const charts = [];
  let picked = null;

  // A number as the objective's unit shows it.
  function digits(value, objective) {
    if (value === null || value === undefined) return "-";
    const size = Math.abs(value);
    const places = objective && objective.share ? 3 : size < 10 ? 3 : size < 100 ? 2 : size < 1000 ? 1 : 0;
    return value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  }
  const shown = (entry, objective) =>
    entry ? `${entry[2] ? "~" : ""}${digits(entry[0], objective)} ±${digits(entry[1], objective)}` : "-";
  const loss = (value, objective) => (objective.higher ? -value : value);
  const role = (c) =>
    data.parents.includes(c.id) ? "parent" : c.o === "baseline" ? "baseline" : c.p || "searched";
  const roleColor = (c) =>
    ({ parent: color("rival"), baseline: color("rival"), front: color("front"), near: color("near"), "over a limit": color("over") })[role(c)] || color("behind");

  // ---- which model is picked

  function pick(id, scrolls) {
    if (!byId.has(id)) return;
    picked = id;
    document.querySelectorAll("tr[data-id]").forEach((row) => row.classList.toggle("picked", row.dataset.id === id));
    const c = byId.get(id);
    $("pick-name").textContent = id;
    $("pick-role").textContent = [
      id === data.chosen ? "chosen" : "", id === data.knee ? "knee" : "", role(c) === "searched" ? "" : role(c),
    ].filter(Boolean).join(", ");
    const facts = [];
    data.objectives.forEach((o, n) => {
      if (c.v) facts.push([`${o.name} on validation`, shown(c.v[n], o)]);
      if (c.s) facts.push([`${o.name} on search`, shown(c.s[n], o)]);
    });
    (c.g || []).forEach((value, n) => facts.push([data.dimensions[n], Number(value).toPrecision(4)]));
    $("pick-facts").replaceChildren(...facts.slice(0, 40).map(([name, value]) => {
      const box = document.createElement("div"), term = document.createElement("dt"), what = document.createElement("dd");
      term.textContent = name; what.textContent = value; box.append(term, what);
      return box;
    }));
    if (c.failed) $("pick-facts").textContent = `failed: ${c.failed}`;
    $("promote").textContent = c.failed ? "failed" : `evomerge promote ${quoted(data.run_dir)} --candidate ${id}`;
    $("show").textContent = `evomerge show ${quoted(data.run_dir)} ${id}`;
    follow();
    if (named() !== id) history.replaceState(null, "", `#${encodeURIComponent(id)}`);
    if (scrolls) $("pick").scrollIntoView({ block: "nearest" });
  }
  // Whom the address names.
  function named() {
    try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }
  }
  const follow = () => charts.filter((each) => each.follows).forEach((each) => each.draw());
  const quoted = (text) => (/^[\w@%+=:,.\/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

  document.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-id]");
    if (row) pick(row.dataset.id);
    const copies = event.target.closest("button[data-copy]");
    if (copies) {
      const text = $(copies.dataset.copy).textContent;
      const say = (word) => { copies.textContent = word; setTimeout(() => { copies.textContent = "copy"; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => say("copied"), () => say("select it"));
      else say("select it");
    }
    const head = event.target.closest("table.sortable th");
    if (head) sort(head);
  });

  // ---- tables

  function sort(head) {
    const table = head.closest("table"), place = head.cellIndex;
    const down = head.getAttribute("aria-sort") !== "descending";
    table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const key = (row) => {
      const text = row.cells[place].textContent.trim(), number = parseFloat(text.replace(/[~,]/g, ""));
      return /^[~\d.,+-]/.test(text) && !Number.isNaN(number) ? number : text === "-" ? null : text;
    };
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      // What is missing comes last either way.
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  }

  function everybody() {
    const body = $("everybody").tBodies[0];
    const rows = data.candidates.map((c) => {
      const row = document.createElement("tr");
      row.dataset.id = c.id;
      if (c.id === data.chosen) row.className = "chosen";
      const cells = [c.id, c.failed ? "failed" : role(c)];
      if (data.combined) cells.push(c.c ? shown(c.c, data.combined) : "-");
      data.objectives.forEach((o, n) => cells.push(c.s ? shown(c.s[n], o) : "-"));
      data.objectives.forEach((o, n) => cells.push(c.v ? shown(c.v[n], o) : "-"));
      row.append(...cells.map((text) => { const cell = document.createElement("td"); cell.textContent = text; return cell; }));
      return row;
    });
    body.append(...rows);
    const first = $("everybody").tHead.rows[0].cells[2];
    sort(first);
    if (!(data.combined || data.objectives[0]).higher) sort(first);
  }

  // ---- pictures

  function layout(more) {
    const axis = { gridcolor: color("line"), zerolinecolor: color("line"), automargin: true };
    const { xaxis, yaxis, ...rest } = more;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: color("ink") },
      margin: { l: 50, r: 10, t: 10, b: 45 }, showlegend: false, hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
    };
  }

  // A picture that is drawn anew when colors change and, where it follows, when another is picked.
  function chart(id, make, follows) {
    const place = $(id);
    if (!place || !window.Plotly) { if (place) place.remove(); return () => {}; }
    const draw = () => {
      const [traces, more] = make();
      Plotly.react(place, traces, layout(more), { displayModeBar: false, responsive: true });
    };
    draw();
    place.on("plotly_click", (event) => {
      const at = event.points[0];
      const found = at.data.ids ? at.data.ids[at.pointNumber] : at.data.meta;
      if (found) pick(found);
    });
    charts.push({ draw, follows });
    return draw;
  }

  const words = (o) => `${o.name}, ${o.words}`;

  // Points of some candidates, apart by role; the picked one has a ring.
  function points(list, x, y, errors) {
    const groups = new Map();
    list.forEach((c) => groups.set(role(c), [...(groups.get(role(c)) || []), c]));
    const traces = [...groups].map(([name, members]) => ({
      type: "scatter", mode: "markers", name, ids: members.map((c) => c.id),
      x: members.map(x), y: members.map(y), text: members.map((c) => c.id),
      hovertemplate: "%{text}: %{x:.4g}, %{y:.4g}<extra></extra>",
      marker: {
        color: roleColor(members[0]), size: name === "front" ? 10 : 8,
        symbol: members.map((c) => (c.id === data.knee ? "star" : name === "parent" ? "diamond" : name === "baseline" ? "square" : "circle")),
        opacity: members.map((c) => (isOut(c) ? 0.2 : 1)),
      },
      ...(errors ? errors(members) : {}),
    }));
    const one = byId.get(picked);
    if (one && list.includes(one)) {
      traces.push({ type: "scatter", mode: "markers", name: "picked", ids: [one.id], x: [x(one)], y: [y(one)], hoverinfo: "skip", marker: { size: 18, symbol: "circle-open", color: color("pick"), line: { width: 3 } } });
    }
    return traces;
  }

  const bars = (values) => ({ type: "data", array: values, color: color("soft"), thickness: 1, width: 0 });
  const validated = data.candidates.filter((c) => c.v);
  const limits = new Map();
  const weights = new Map();
  const members = () => validated.filter((c) => c.p === "front");
  const isOut = (c) => c.v && [...limits].some(([n, bound]) => loss(c.v[n][0], data.objectives[n]) > loss(bound, data.objectives[n]) + 1e-12);

  function front() {
    const objectives = data.objectives;
    const selects = ["front-x", "front-y"].map($);
    if (!selects[0]) return;
    selects.forEach((select, n) => {
      select.append(...objectives.map((o, place) => new Option(o.name, place)));
      select.value = Math.min(n, objectives.length - 1);
      select.addEventListener("change", () => redraw());
    });
    const redraw = chart("front", () => {
      const [i, j] = selects.map((select) => Number(select.value));
      const list = validated.filter((c) => c.v[i][0] !== null && c.v[j][0] !== null);
      const traces = points(list, (c) => c.v[i][0], (c) => c.v[j][0], (group) => ({
        error_x: bars(group.map((c) => c.v[i][1])), error_y: bars(group.map((c) => c.v[j][1])),
      }));
      const shapes = [[i, "x"], [j, "y"]].filter(([n]) => objectives[n].name in data.limits).map(([n, axis]) => {
        const at = data.limits[objectives[n].name];
        const line = { color: color("over"), dash: "dot" };
        return axis === "x" ? { type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line } : { type: "line", y0: at, y1: at, xref: "paper", x0: 0, x1: 1, line };
      });
      return [traces, { shapes, showlegend: true, xaxis: { title: { text: words(objectives[i]) } }, yaxis: { title: { text: words(objectives[j]) } } }];
    }, true);
  }

  // Parallel coordinates: objectives, and the numbers of the genome; a line for each model.
  function parallel() {
    const list = validated.filter((c) => c.p !== "behind" || c.o === "baseline").slice(0, 80);
    const axes = data.objectives.map((o, n) => ({ name: `${o.name}<br>${o.words}`, value: (c) => c.v[n][0], flip: !o.higher, o }));
    const genomes = list.filter((c) => c.g);
    data.dimensions.slice(0, 8).forEach((name, n) => { if (genomes.length) axes.push({ name, value: (c) => (c.g ? c.g[n] : null) }); });
    axes.forEach((axis) => {
      const values = list.map(axis.value).filter((v) => v !== null && v !== undefined);
      axis.low = Math.min(...values); axis.high = Math.max(...values);
    });
    const height = (axis, c) => {
      const value = axis.value(c);
      if (value === null || value === undefined) return null;
      const share = axis.high > axis.low ? (value - axis.low) / (axis.high - axis.low) : 0.5;
      return axis.flip ? 1 - share : share;
    };
    chart("parallel", () => {
      const traces = list.map((c) => ({
        type: "scatter", mode: "lines+markers", meta: c.id, name: c.id,
        x: axes.map((_, n) => n), y: axes.map((axis) => height(axis, c)),
        text: axes.map((axis) => `${c.id}: ${digits(axis.value(c), axis.o)}`), hovertemplate: "%{text}<extra></extra>",
        line: { color: c.id === picked ? color("pick") : roleColor(c), width: c.id === picked ? 4 : 1.2 },
        marker: { size: c.id === picked ? 8 : 4 }, opacity: isOut(c) ? 0.12 : c.id === picked ? 1 : 0.6,
      }));
      traces.sort((a, b) => (a.meta === picked) - (b.meta === picked));
      const many = axes.length > 6 || axes.length * 130 > $("parallel").clientWidth;
      return [traces, {
        margin: { l: 20, r: 20, t: 10, b: many ? 110 : 60 },
        xaxis: { tickvals: axes.map((_, n) => n), ticktext: axes.map((axis) => (many ? axis.name.split("<br>")[0] : axis.name)), tickangle: many ? 40 : 0, fixedrange: true },
        yaxis: { showticklabels: false, fixedrange: true, title: { text: "better or greater is up" } },
      }];
    }, true);
  }

  // What the sliders ask for: the same rule as `evomerge front --prefer ... --at-least ...`.
  function sliders() {
    const place = $("sliders");
    if (!place) return;
    data.objectives.forEach((o, n) => {
      const values = members().map((c) => c.v[n][0]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const make = (id, min, max, value, text, use) => {
        const label = document.createElement("label"), input = document.createElement("input"), word = document.createElement("span");
        Object.assign(input, { type: "range", id, min, max, step: "any", value });
        const tell = () => { word.textContent = text(Number(input.value)); };
        input.addEventListener("input", () => { use(Number(input.value)); tell(); choose(); });
        tell(); label.append(word, input); place.append(label);
      };
      make(`weight-${n}`, 0, 1, 0.5, (v) => `weight of ${o.name}: ${v.toFixed(2)}`, (v) => weights.set(n, v));
      const worst = o.higher ? low : high;
      make(`limit-${n}`, low, high, worst, (v) => `${o.name} ${o.higher ? "at least" : "at most"} ${digits(v, o)}`, (v) => {
        // Six digits, rounded to the worse side, so that the command means the same models.
        const unit = 10 ** (Math.floor(Math.log10(Math.abs(v) || 1)) - 5);
        const bound = (o.higher ? Math.floor(v / unit) : Math.ceil(v / unit)) * unit;
        if (o.higher ? bound <= worst : bound >= worst) limits.delete(n); else limits.set(n, bound);
      });
    });
  }

  function choose() {
    const left = members().filter((c) => !isOut(c));
    document.querySelectorAll("tr[data-id]").forEach((row) => { const c = byId.get(row.dataset.id); row.classList.toggle("dimmed", Boolean(c && isOut(c))); });
    const options = [];
    const listed = (pairs) => pairs.map(([n, v]) => `${data.objectives[n].name}=${Number(v.toPrecision(6))}`).join(",");
    if (weights.size) options.push(`--prefer ${listed(data.objectives.map((_, n) => [n, weights.has(n) ? weights.get(n) : 0.5]))}`);
    if (limits.size) options.push(`--at-least ${listed([...limits])}`);
    $("front-command").textContent = ["evomerge front", quoted(data.run_dir), ...options].join(" ");
    if (!left.length) { $("front-says").textContent = "nobody on the front is that good"; follow(); return; }
    const weighted = data.objectives.map((_, n) => (weights.has(n) ? weights.get(n) : 0.5));
    if (weights.size && !weighted.some((w) => w > 0)) {
      $("front-says").textContent = "give one objective a weight above 0";
      return;
    }
    const losses = left.map((c) => data.objectives.map((o, n) => loss(c.v[n][0], o)));
    let sums;
    if (weights.size) {
      sums = losses.map((row) => row.reduce((sum, value, n) => sum + weighted[n] * value, 0));
    } else {
      const low = losses[0].map((_, n) => Math.min(...losses.map((row) => row[n])));
      const high = losses[0].map((_, n) => Math.max(...losses.map((row) => row[n])));
      sums = losses.map((row) => row.reduce((sum, value, n) => sum + (value - low[n]) / (high[n] > low[n] ? high[n] - low[n] : 1), 0));
    }
    const best = left[sums.indexOf(Math.min(...sums))].id;
    $("front-says").textContent = `${left.length} of ${members().length} models on the front are good enough; ${weights.size ? "the best for these weights" : "their knee"} is ${best}`;
    pick(best);
  }

  function progress() {
    const told = data.candidates.filter((c) => c.t && c.c).sort((a, b) => a.t - b.t);
    if (!told.length) return;
    const up = data.combined ? data.combined.higher : true;
    const better = (a, b) => (up ? a > b : a < b);
    const rivals = data.candidates.filter((c) => c.o === "baseline" && c.c);
    const parents = rivals.filter((c) => data.parents.includes(c.id));
    const bestOf = (list) => list.reduce((best, c) => (!best || better(c.c[0], best.c[0]) ? c : best), null);
    // Without a unit the numbers mean something beside the best parent only.
    const zero = data.combined || !parents.length ? 0 : bestOf(parents).c[0];
    const title = data.combined ? `combined score on search, ${data.combined.words}` : "gain over the best parent, combined score on search";
    const running = (values) => { let best = null; return values.map((v) => (best = best === null || better(v, best) ? v : best)); };
    chart("progress", () => {
      const traces = points(told, (c) => c.t, (c) => c.c[0] - zero, (group) => ({
        error_y: { ...bars(group.map((c) => (c.c[2] ? 1.96 * c.c[1] : 0))) },
      }));
      traces.forEach((trace) => { if (trace.ids.length && trace.name !== "picked") trace.marker.symbol = trace.ids.map((id) => (byId.get(id).c[2] ? "circle-open" : "circle")); });
      const cautious = told.map((c) => c.b - zero);
      traces.push({ type: "scatter", mode: "lines", name: "best so far", x: told.map((c) => c.t), y: running(cautious), line: { shape: "hv", color: color("front"), width: 2 }, hoverinfo: "skip" });
      if (data.random.length) {
        const values = data.random.map((v) => (data.combined && !up ? -v : v) - zero);
        traces.push({ type: "scatter", mode: "lines", name: "random search, best so far", x: values.map((_, n) => n + 1), y: running(values), line: { shape: "hv", color: color("near"), dash: "dash" }, hoverinfo: "skip" });
      }
      const lines = [["best parent", bestOf(parents), "dot"], ["best un-evolved merge", bestOf(rivals.filter((c) => !parents.includes(c))), "dash"]];
      lines.filter(([, c]) => c).forEach(([name, c, dash]) => traces.push({
        type: "scatter", mode: "lines", name: `${name} (${c.id})`, x: [told[0].t, told[told.length - 1].t], y: [c.c[0] - zero, c.c[0] - zero], line: { color: color("rival"), dash }, hoverinfo: "name",
      }));
      return [traces, { showlegend: true, xaxis: { title: { text: "candidates" } }, yaxis: { title: { text: title } } }];
    }, true);
  }

  function importance() {
    if (!$("importance")) return;
    chart("importance", () => [
      data.importance.map((each) => ({
        type: "bar", orientation: "h", name: each.objective, y: Object.keys(each.shares).slice(0, 40), x: Object.values(each.shares).slice(0, 40), hovertemplate: "%{y}: %{x:.0%}<extra>%{data.name}</extra>",
      })),
      { showlegend: true, barmode: "group", margin: { l: 110, r: 10, t: 10, b: 45 }, xaxis: { title: { text: "share of the foretold variation" }, tickformat: ".0%" }, yaxis: { autorange: "reversed", automargin: true } },
    ]);
    data.importance.forEach((each, n) => {
      const o = data.objectives.find((found) => found.name === each.objective);
      each.slices.slice(0, 3).forEach((slice, m) => {
        const place = document.createElement("div");
        place.className = "plot"; place.id = `slice-${n}-${m}`;
        $("slices").append(place);
        chart(place.id, () => [[
          { type: "scatter", mode: "lines", x: [...slice.at, ...[...slice.at].reverse()], y: [...slice.high, ...[...slice.low].reverse()], fill: "toself", line: { width: 0 }, fillcolor: color("line"), hoverinfo: "skip" },
          { type: "scatter", mode: "lines", x: slice.at, y: slice.mean, line: { color: color("front") }, hovertemplate: "%{x:.3g}: %{y:.4g}<extra></extra>" },
        ], { xaxis: { title: { text: slice.dimension } }, yaxis: { title: { text: words(o) } }, shapes: [{ type: "line", x0: slice.here, x1: slice.here, yref: "paper", y0: 0, y1: 1, line: { color: color("pick"), dash: "dot" } }] }]);
      });
    });
  }

  function explained() {
    if (!$("explained")) return;
    const many = data.explained.length > 1;
    $("explained").style.height = `${110 + data.explained[0].what.length * (many ? 40 : 28)}px`;
    chart("explained", () => {
      const traces = data.explained.map((each) => ({
        type: "scatter", mode: "markers", name: each.objective, ids: each.ids, x: each.value, y: each.what, marker: { size: 9, ...(data.explained.length === 1 ? { color: color("front") } : {}) },
        error_x: { ...bars(each.high.map((v, n) => v - each.value[n])), symmetric: false, arrayminus: each.low.map((v, n) => each.value[n] - v), thickness: 2 },
        hovertemplate: "without %{y}: %{x:.4g} worse<extra>%{data.name}</extra>",
      }));
      return [traces, { showlegend: many, xaxis: { title: { text: many ? "worse by" : `worse by, ${data.explained[0].words}` }, zeroline: true, zerolinecolor: color("ink") }, yaxis: { type: "category", autorange: "reversed" } }];
    });
  }

  function heat() {
    const place = $("heat");
    if (!place) return;
    const of = () => data.heat[picked] || data.heat[data.chosen] || Object.values(data.heat)[0];
    const who = () => (data.heat[picked] ? picked : data.heat[data.chosen] ? data.chosen : Object.keys(data.heat)[0]);
    const names = Object.keys(of());
    names.forEach((name, n) => {
      const box = document.createElement("div");
      box.className = "plot"; box.id = `heat-${n}`;
      place.append(box);
      chart(box.id, () => {
        const map = of()[name] || { values: [], layers: [], models: [] };
        return [[{ type: "heatmap", z: map.values, x: map.layers, y: map.models, colorscale: "Viridis", xgap: 1, ygap: 1, hovertemplate: "%{y}, layer %{x}: %{z:.4g}<extra></extra>", colorbar: { thickness: 10 } }],
          { xaxis: { title: { text: `${name} of ${who()}, by layer` }, type: "category" }, yaxis: { automargin: true, autorange: "reversed" } }];
      }, true);
    });
  }

  function shrinkage() {
    chart("shrinkage", () => [
      data.shrinkage.map((each) => ({
        type: "scatter", mode: "lines+markers", name: each.name, meta: each.name, connectgaps: true,
        x: ["search", "validation", "holdout"], y: each.values.map((v) => (v ? v[0] : null)), error_y: bars(each.values.map((v) => (v ? 1.96 * v[1] : 0))),
        opacity: each.name === data.chosen || data.parents.includes(each.name) ? 1 : 0.35, hovertemplate: "%{data.name}, %{x}: %{y:.4g}<extra></extra>",
      })),
      { showlegend: data.shrinkage.length < 6, xaxis: { type: "category" }, yaxis: { title: { text: data.combined ? `combined score, ${data.combined.words}` : "combined score, higher is better" } } },
    ]);
  }

  function predicted() {
    if (!$("predicted")) return;
    data.objectives.forEach((o, n) => {
      const list = data.predicted.filter((each) => o.name in each.predicted);
      if (!list.length) return;
      const place = document.createElement("div");
      place.className = "plot"; place.id = `predicted-${n}`;
      $("predicted").append(place);
      const x = list.map((each) => each.predicted[o.name][0]), y = list.map((each) => each.measured[o.name]);
      const ends = [Math.min(...x, ...y), Math.max(...x, ...y)];
      chart(place.id, () => [[
        { type: "scatter", mode: "lines", x: ends, y: ends, line: { color: color("line") }, hoverinfo: "skip" },
        { type: "scatter", mode: "markers", ids: list.map((each) => each.id), x, y, text: list.map((each) => each.id), marker: { color: color("front") },
          error_x: { ...bars(list.map((each, m) => each.predicted[o.name][2] - x[m])), symmetric: false, arrayminus: list.map((each, m) => x[m] - each.predicted[o.name][1]) }, hovertemplate: "%{text}: predicted %{x:.4g}, measured %{y:.4g}<extra></extra>" },
      ], { xaxis: { title: { text: `${words(o)}, predicted on search` } }, yaxis: { title: { text: "measured on validation" } } }]);
    });
    if (data.growth.length) {
      const place = document.createElement("div");
      place.className = "plot"; place.id = "growth";
      $("predicted").append(place);
      chart("growth", () => [[{ type: "scatter", mode: "lines", x: data.growth.map((_, n) => n + 1), y: data.growth, line: { shape: "hv", color: color("front") } }], { xaxis: { title: { text: "candidates" } }, yaxis: { title: { text: "hypervolume on search" }, rangemode: "tozero" } }]);
    }
  }

  everybody(); front(); parallel(); sliders(); progress(); importance(); explained(); heat(); shrinkage(); predicted();
  if ($("front-command")) $("front-command").textContent = `evomerge front ${quoted(data.run_dir)}`;
  const wanted = named();
  pick(byId.has(wanted) ? wanted : data.chosen || (data.candidates[0] || {}).id);
  window.addEventListener("hashchange", () => pick(named()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((each) => each.draw()));
  document.documentElement.dataset.drawn = "yes";
})();
