// Loads the page's content again every few seconds, but never under the reader's hands. Pages work without it.
"use strict";
(() => {
  const every = 5000;
  const main = document.querySelector("main[data-live]");
  const button = document.getElementById("live");
  if (!main || !button) return;
  let paused = false;
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume updates" : "Pause updates";
  });
  const busy = () =>
    paused || document.hidden || main.contains(document.activeElement) || !getSelection().isCollapsed;
  const load = async () => {
    if (busy()) return;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      if (fresh && !busy() && fresh.innerHTML !== main.innerHTML) main.replaceChildren(...fresh.childNodes);
    } catch {
      // Not reached: the next time may do.
    }
  };
  setInterval(load, every);
})();
