// The theme that was chosen, before anything is painted; and whether the page follows by itself.
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
})();
