// Keeps the page fresh: an event tells of a new tick, the page is fetched again, and the parts that have changed are
// exchanged. Without this script the page is the same, and is reloaded by hand.
"use strict";

(() => {
  const RETRY_MS = 5000;
  const live = document.getElementById("live");
  let source = null;
  let timer = 0;
  let busy = false;
  let again = false;

  function tell(word) {
    if (live.textContent !== word) {
      live.textContent = word;
      live.className = word === "live" ? "good" : "warn";
    }
  }

  function isSelectedIn(part) {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && selection.containsNode(part, true);
  }

  // What a person has opened, scrolled or focused stays as it is.
  function exchange(old, fresh) {
    for (const opened of old.querySelectorAll("details[open]")) {
      const same = fresh.querySelector(`#${opened.id}`);
      if (same !== null) same.open = true;
    }
    if (old.isEqualNode(fresh) || isSelectedIn(old)) return;
    const scrolled = [...old.querySelectorAll(".scroll")].map((each) => [each.id, each.scrollLeft]);
    const active = old.contains(document.activeElement) ? document.activeElement.id : "";
    old.replaceWith(fresh);
    for (const [id, left] of scrolled) {
      const box = document.getElementById(id);
      if (box !== null) box.scrollLeft = left;
    }
    if (active) document.getElementById(active)?.focus({ preventScroll: true });
  }

  function show(next) {
    const main = document.getElementById("main");
    const parts = [...next.getElementById("main").children].map((part) => document.adoptNode(part));
    const ids = new Set(parts.map((part) => part.id));
    for (const part of [...main.children]) if (!ids.has(part.id)) part.remove();
    for (const part of parts) {
      const old = document.getElementById(part.id);
      if (old === null) main.append(part);
      else exchange(old, part);
    }
    document.title = next.title;
  }

  async function refresh() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const answer = await fetch("/", { cache: "no-store", credentials: "omit" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      tell("live");
    } catch {
      tell("no answer from balancerd, trying again");
    } finally {
      busy = false;
    }
    if (again) {
      again = false;
      refresh();
    }
  }

  function listen() {
    clearTimeout(timer);
    if (source !== null || document.hidden) return;
    source = new EventSource("/events");
    source.addEventListener("tick", refresh);
    source.addEventListener("error", () => {
      tell("no answer from balancerd, trying again");
      if (source.readyState === EventSource.CLOSED) {
        // Refused, as when too many pages are open: look now and then instead.
        source = null;
        timer = setTimeout(() => { refresh(); listen(); }, RETRY_MS);
      }
    });
  }

  // A hidden page costs nothing; browsers allow few connections to one address.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      source?.close();
      source = null;
    } else {
      listen();
    }
  });
  listen();
})();
