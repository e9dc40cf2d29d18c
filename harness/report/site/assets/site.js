"use strict";
// Tables with sorting, filters, pages and hidden columns; plots drawn with Vega; themes. No network access is needed.
(() => {
  const PAGE = 50;
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // ---- themes --------------------------------------------------------------------------------------------

  const root = document.documentElement;
  const remembered = {
    get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("theme", value); } catch { /* browsers may refuse storage for local files */ } },
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => root.dataset.theme || (system.matches ? "dark" : "light");
  if (remembered.get()) root.dataset.theme = remembered.get();

  // ---- plots ----------------------------------------------------------------------------------------------

  const block = document.getElementById("plots");
  const page = block ? JSON.parse(block.textContent) : { data: {}, figures: {} };

  const rows = (columns) => {
    const names = Object.keys(columns);
    return names.length ? columns[names[0]].map((_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]]))) : [];
  };

  // Run pages contain only data, because they share specifications. Other pages contain complete specifications.
  const complete = (key) => {
    const { spec, data } = page.figures[key];
    if (spec) return { ...spec, datasets: Object.fromEntries(data.map((name) => [name, rows(page.data[name])])) };
    const made = structuredClone(window.harnessPlots.runs[key]);
    delete made.config;
    const { names, series, x, ...columns } = page.data[data[0]];
    const points = series
      ? Object.entries(series).flatMap(([name, values]) => values.map((y, i) => ({ x: x[i], y, name })))
      : rows(columns);
    made.datasets = { ...made.datasets, points };
    if (names) {
      made.params.find((param) => param.name === "names").value = names;
      const domain = [-0.5, names.length - 0.5];
      made.encoding.x.scale.domain = domain;
      made.encoding.y.scale.domain = domain;
      made.width = "container";
      made.height = 340;
    }
    return made;
  };

  // The Vega script is loaded last, so that tables do not have to wait for it.
  const loaded = new Promise((resolve) => {
    if (document.readyState === "complete") resolve();
    else addEventListener("load", resolve);
  });

  const views = new Map();
  const begun = new Map();
  const draw = async (place) => {
    const shade = theme();
    if (begun.get(place) === shade) return;
    begun.set(place, shade);
    delete place.dataset.drawn;
    try {
      views.get(place)?.finalize();
      const file = document.title.split(" · ")[0] + "-" + place.dataset.plot;
      const view = await window.vegaEmbed(place, complete(place.dataset.plot), {
        config: window.harnessPlots.themes[shade],
        actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
        downloadFileName: file.replace(/[^A-Za-z0-9.-]+/g, "-"),
        renderer: "svg",
        loader: { load: () => Promise.reject(new Error("network access is disabled")) },
        tooltip: { theme: shade },
      });
      views.set(place, view);
      place.querySelector("summary")?.setAttribute("aria-label", "Save the plot");
      performance.mark("drawn");
      place.dataset.drawn = shade;
    } catch (error) {
      begun.delete(place);
      place.textContent = `Cannot draw the plot: ${error.message}`;
    }
  };

  // Draw one plot at a time and handle user events in between, because drawing blocks the page.
  let drawing = loaded;
  const queue = (place) => {
    drawing = drawing.then(() => draw(place)).then(() => new Promise((resolve) => setTimeout(resolve)));
  };
  const charts = [...document.querySelectorAll("[data-plot]")];
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      queue(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const chart of charts) near.observe(chart);
  // Draw all plots before the page is printed.
  addEventListener("beforeprint", () => window.vegaEmbed && charts.forEach(draw));

  const redraw = () => [...begun.keys()].forEach(queue);
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    remembered.set(root.dataset.theme);
    redraw();
  });
  system.addEventListener("change", redraw);

  // ---- tables ---------------------------------------------------------------------------------------------

  const cellOf = ({ t, v, ci, c, h }) => {
    const cell = make("td", { className: c || "" });
    cell.append(h ? make("a", { href: h, textContent: t }) : t);
    if (v !== undefined && v !== null) cell.dataset.v = v;
    if (c && c.includes("flagged") && c.includes("num")) {
      cell.append(make("span", { className: "flag", title: "flagged: see the note below the table", textContent: "!" }));
    }
    if (ci) cell.append(make("span", { className: "ci", textContent: ` ± ${ci}` }));
    return cell;
  };
  const readCell = (cell) => {
    const ci = cell.querySelector(".ci");
    const flag = cell.querySelector(".flag");
    let text = cell.textContent;
    if (ci) text = text.slice(0, -ci.textContent.length);
    if (flag) text = text.slice(0, -1);
    return { t: text.trim().replace(/\s+/g, " "), v: cell.dataset.v === undefined ? null : Number(cell.dataset.v), ci: ci ? ci.textContent.slice(3) : "" };
  };

  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const missing = (cell) => cell.v === null && (cell.t === "–" || cell.t === "");
  const compare = (a, b, sign) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return sign * (a.v !== null && b.v !== null ? a.v - b.v : order.compare(a.t, b.t));
  };

  const save = (name, type, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const field = (text, isText) => {
    const safe = isText && /^\s*[=+\-@]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };

  const enhance = (holder) => {
    const heads = [...holder.querySelectorAll("thead th")];
    const body = holder.querySelector("tbody");
    const rest = holder.querySelector("script.rest");
    const model = [...body.rows].map((element) => ({
      element, cells: [...element.cells].map(readCell), failed: element.querySelector("td.failed") !== null,
    }));
    if (rest) {
      for (const cells of JSON.parse(rest.textContent)) {
        model.push({
          element: null, source: cells, cells: cells.map(({ t, v = null, ci = "" }) => ({ t, v, ci })),
          failed: cells.some(({ c }) => c && c.split(" ").includes("failed")),
        });
      }
    }
    const hidden = new Set();
    const state = { column: -1, sign: 1, words: [], page: 0, failed: true };
    const status = make("span", { role: "status" });

    const chosen = () => {
      let matching = state.failed ? model : model.filter((row) => !row.failed);
      if (state.words.length) {
        matching = matching.filter(({ cells }) => {
          const text = cells.map((cell) => cell.t).join(" ").toLowerCase();
          return state.words.every((word) => text.includes(word));
        });
      }
      if (state.column < 0) return matching;
      return [...matching].sort((a, b) => compare(a.cells[state.column], b.cells[state.column], state.sign));
    };
    const show = () => {
      const matching = chosen();
      const pages = Math.max(1, Math.ceil(matching.length / PAGE));
      state.page = Math.min(state.page, pages - 1);
      const page = matching.slice(state.page * PAGE, (state.page + 1) * PAGE);
      for (const row of page) {
        if (!row.element) row.element = make("tr", {}, ...row.source.map(cellOf));
        [...row.element.cells].forEach((cell, i) => { cell.hidden = hidden.has(i); });
      }
      heads.forEach((head, i) => { head.hidden = hidden.has(i); });
      body.replaceChildren(...page.map((row) => row.element));
      const total = `${model.length} ${model.length === 1 ? "row" : "rows"}`;
      const count = matching.length === model.length ? total : `${matching.length} of ${total}`;
      status.textContent = pages > 1 ? `page ${state.page + 1} of ${pages}, ${count}` : count;
      previous.disabled = state.page === 0;
      next.disabled = state.page === pages - 1;
      pager.hidden = model.length <= PAGE && !state.words.length && state.failed;
      previous.hidden = next.hidden = pages === 1;
    };
    const turn = (by) => () => { state.page += by; show(); };
    const previous = make("button", { type: "button", textContent: "Previous", onclick: turn(-1) });
    const next = make("button", { type: "button", textContent: "Next", onclick: turn(1) });
    const pager = make("div", { className: "pager" }, previous, next, status);
    holder.append(pager);

    heads.forEach((head, i) => {
      if (!head.textContent.trim() || model.length < 2) return;
      const button = make("button", { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        state.sign = state.column === i ? -state.sign : head.classList.contains("num") ? -1 : 1;
        state.column = i;
        state.page = 0;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", state.sign > 0 ? "ascending" : "descending");
        show();
      });
    });

    const tools = holder.querySelector(".tools");
    if ("controls" in holder.dataset) {
      const filter = make("input", { type: "search", placeholder: "Filter rows", ariaLabel: "Filter rows" });
      filter.addEventListener("input", () => {
        state.words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
        state.page = 0;
        show();
      });
      const menu = make("div", { className: "menu" });
      heads.forEach((head, i) => {
        const box = make("input", { type: "checkbox", checked: true });
        box.addEventListener("change", () => { hidden[box.checked ? "delete" : "add"](i); show(); });
        menu.append(make("label", {}, box, ` ${head.textContent.trim()}`));
      });
      tools.prepend(filter, make("details", {}, make("summary", { textContent: "Columns" }), menu));
      if (model.some((row) => row.failed)) {
        const box = make("input", { type: "checkbox", checked: true });
        box.addEventListener("change", () => { state.failed = box.checked; state.page = 0; show(); });
        filter.after(make("label", {}, box, " Failed"));
      }
    }
    for (const button of tools.querySelectorAll("[data-save]")) {
      button.addEventListener("click", () => {
        const names = heads.map((head) => head.dataset.name || "name");
        const numeric = heads.map((head) => head.classList.contains("num"));
        const list = chosen();
        if (button.dataset.save === "csv") {
          const lines = [names.map((name) => field(name, true)), ...list.map(({ cells }) => cells.map((cell, i) => field(cell.t === "–" ? "" : cell.t, !numeric[i])))];
          save(`${holder.dataset.name}.csv`, "text/csv", lines.map((line) => line.join(",")).join("\n") + "\n");
        } else {
          const value = (cell) => (cell.t === "–" ? null : cell.v !== null && cell.t === String(Number(cell.t)) ? Number(cell.t) : cell.t);
          const objects = list.map(({ cells }) => Object.fromEntries(cells.map((cell, i) => [names[i], value(cell)])));
          save(`${holder.dataset.name}.json`, "application/json", JSON.stringify(objects, null, 1) + "\n");
        }
      });
    }
    show();
  };
  document.querySelectorAll(".table").forEach(enhance);

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
        button.textContent = "Selected";
      }
    });
  }
  for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
  root.dataset.ready = "";
  performance.mark("ready");
})();
