// The theme that was chosen, before anything is painted; whether the page follows by itself;
// and charts, which tell of one moment together and are zoomed by a drag.
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // a browser that keeps nothing
    }
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }

  if (chosen()) root.dataset.theme = chosen();

  function tell(state, text) {
    const live = document.getElementById("live");
    if (!live || live.dataset.state === state) return;
    live.dataset.state = state;
    live.querySelector(".live-text").textContent = text;
  }

  // Figures that are not followed any more are dimmed, and say since when.
  function age(asOf) {
    if (asOf) root.dataset.asOf = asOf;
    else delete root.dataset.asOf;
  }

  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // It lasts as long as the page.
      }
    });
    const trouble = document.getElementById("trouble");
    document.body.addEventListener("htmx:sseOpen", ({ detail }) => {
      detail.source.addEventListener("trouble", ({ data }) => {
        const { text, asOf } = JSON.parse(data);
        trouble.hidden = !text;
        trouble.textContent = text;
        age(asOf);
        if (text) tell("blind", asOf ? `as of ${asOf}` : "no answer");
        else tell("on", "watch" in document.getElementById("live").dataset ? "connected" : "live");
      });
    });
    document.body.addEventListener("htmx:sseError", () => {
      tell("off", "reconnecting");
      if (!root.dataset.asOf) age(new Date().toLocaleTimeString([], { hour12: false }));
    });
  });

  // ---- charts ----

  let pointed = null; // the place in the period, from 0 to 1
  let dragged = null; // where a drag began

  function placeIn(svg, event) {
    const box = svg.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  }

  function ground(event) {
    return event.target instanceof Element ? event.target.closest(".plot-ground svg") : null;
  }

  // Bars beneath charts have the same axis of time.
  function dated(event) {
    const bar = event.target instanceof Element ? event.target.closest(".bar svg") : null;
    return ground(event) || (bar && bar.closest(".card").querySelector(".plots") ? bar : null);
  }

  // All charts of a page have one axis of time.
  function draw() {
    for (const all of document.querySelectorAll(".plots")) {
      const times = all.dataset.times.split("|");
      const at = pointed === null ? -1 : Math.min(Math.floor(pointed * times.length), times.length - 1);
      for (const plot of all.querySelectorAll(".plot")) {
        const texts = plot.dataset.texts.split("|");
        plot.querySelector(".readout").textContent =
          at < 0 ? plot.dataset.rest : `${times[at]}  ${texts[at]}`;
      }
      for (const svg of all.querySelectorAll(".plot-ground svg")) {
        const width = svg.viewBox.baseVal.width;
        const x = pointed === null ? -width : pointed * width;
        for (const side of ["x1", "x2"]) svg.querySelector(".cross").setAttribute(side, x);
        const brush = svg.querySelector(".brush");
        const from = dragged === null || pointed === null ? 0 : Math.min(dragged, pointed) * width;
        const to = dragged === null || pointed === null ? 0 : Math.max(dragged, pointed) * width;
        brush.setAttribute("x", from);
        brush.setAttribute("width", to - from);
      }
    }
  }

  function zoom(all, begin, end) {
    const since = Number(all.dataset.since);
    const seconds = Number(all.dataset.until) - since;
    const address = new URL(location.href);
    for (const name of ["period", "page"]) address.searchParams.delete(name);
    address.searchParams.set("from", Math.floor(since + seconds * begin));
    address.searchParams.set("to", Math.ceil(since + seconds * end));
    location.assign(address);
  }

  addEventListener("pointermove", (event) => {
    const svg = dated(event);
    if (!svg && pointed === null) return;
    pointed = svg ? placeIn(svg, event) : dragged === null ? null : pointed;
    draw();
  });
  addEventListener("pointerdown", (event) => {
    const svg = ground(event);
    if (!svg || event.button !== 0 || event.pointerType === "touch") return;
    dragged = pointed = placeIn(svg, event);
    event.preventDefault();
    draw();
  });
  addEventListener("pointerup", (event) => {
    if (dragged === null) return;
    const svg = ground(event);
    const [begin, end] = [dragged, svg ? placeIn(svg, event) : pointed];
    dragged = null;
    draw();
    const all = document.querySelector(".plots");
    if (all && Math.abs(end - begin) > 0.02) zoom(all, Math.min(begin, end), Math.max(begin, end));
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || dragged === null) return;
    dragged = null;
    draw();
  });
  addEventListener("DOMContentLoaded", () => {
    draw();
    document.body.addEventListener("htmx:afterSwap", draw);
    document.body.addEventListener("htmx:sseMessage", draw);
  });

  // ---- sliders say where they stand before the answer comes, and go back to what is in force ----

  addEventListener("input", ({ target }) => {
    if (target.matches && target.matches("input[type=range]")) target.nextElementSibling.value = target.value;
  });
  addEventListener("reset", (event) => {
    if (!event.target.matches(".sliders")) return;
    event.preventDefault();
    for (const slider of event.target.querySelectorAll("input[type=range]")) {
      slider.value = slider.dataset.now;
      slider.nextElementSibling.value = slider.value;
    }
    event.target.dispatchEvent(new Event("input", { bubbles: true }));
  });

  // ---- boxes that are ticked stay so when rows are sent anew ----

  const ticked = new Set();
  addEventListener("change", ({ target }) => {
    if (!target.matches || !target.matches("input[form=several]")) return;
    if (target.checked) ticked.add(target.value);
    else ticked.delete(target.value);
  });
  function tick() {
    for (const box of document.querySelectorAll("input[form=several]")) box.checked = ticked.has(box.value);
  }
  addEventListener("DOMContentLoaded", () => {
    for (const box of document.querySelectorAll("input[form=several]:checked")) ticked.add(box.value);
    for (const name of ["htmx:afterSwap", "htmx:sseMessage"]) document.body.addEventListener(name, tick);
  });

  // ---- the field of the limit follows the limit, until somebody changes the field ----

  function followLimit() {
    const field = document.querySelector(".head #limit");
    const told = document.getElementById("limit-now");
    if (!field || !told) return;
    const limit = told.dataset.limit;
    if (field.value === field.defaultValue) field.value = field.defaultValue = limit;
    told.textContent =
      limit === field.defaultValue ? "" : `changed to ${limit === "" ? "no limit" : limit} meanwhile`;
  }
  addEventListener("DOMContentLoaded", () => {
    followLimit();
    document.getElementById("limit")?.addEventListener("input", followLimit);
    for (const name of ["htmx:afterSwap", "htmx:sseMessage"]) document.body.addEventListener(name, followLimit);
  });

  // ---- the keyboard: / searches, arrows go from row to row, enter follows ----

  const ROWS = ".pools th[scope=row] a, .flows .run > a:first-child, .bars a.bar";
  const FOUND = ".found-assets a"; // where a search finds assets and no pool
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target instanceof Element && event.target.closest("input, select, textarea, summary");
    const search = document.getElementById("search");
    if (event.key === "/" && !field) {
      event.preventDefault();
      if (search) {
        search.focus();
        search.select();
      } else location.assign(document.querySelector(".brand").href);
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || (field && field !== search)) return;
    const known = document.querySelectorAll(ROWS);
    const rows = [...(known.length ? known : document.querySelectorAll(FOUND))];
    const at = rows.indexOf(document.activeElement);
    if (!rows.length || (at < 0 && (step < 0 || !(field || document.activeElement === document.body)))) return;
    event.preventDefault();
    if (at === 0 && step < 0 && search) search.focus();
    else rows[Math.min(Math.max(at + step, 0), rows.length - 1)].focus();
  });
})();
