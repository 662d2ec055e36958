// The page: which view is shown, whether the server is well, and the key, if it asks for one.

import { ask, key, pause } from "./api.js";
import { fromTemplate, say } from "./dom.js";
import { showHome } from "./home-view.js";
import { showRun } from "./run-view.js";

const HEALTH_EVERY_MS = 5000, QUIET_MS = 700;
const main = document.getElementById("main");
let leave = () => {};
let visited = false, announcing;

/** Say a line to who does not look: the last one of those that come at once, as of a run that is read again. */
function announce(line) {
  clearTimeout(announcing);
  announcing = setTimeout(() => say(document.getElementById("said"), line), QUIET_MS);
}

function route() {
  leave();
  const run = location.hash.match(/^#\/runs\/([\w-]+)$/);
  leave = run ? showRun(main, run[1], announce) : showHome(main);
  arrive();
}

/** Who moves from view to view by keyboard or ear begins at the heading of the new one. */
function arrive() {
  if (visited) main.querySelector("h1").focus({ preventScroll: true });
  if (visited) scrollTo(0, 0);
  visited = true;
}

function askForKey() {
  leave();
  leave = () => {};
  const { root, parts } = fromTemplate("key-template");
  const refused = Boolean(key.get());
  key.forget();
  main.replaceChildren(root);
  if (refused) say(parts.error, "That key is not one of this server's.");
  parts.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = parts.form.key.value.trim();
    if (!given) return say(parts.error, "Enter a key first.");
    key.set(given);
    route();
  });
  parts.form.key.focus();
}

async function watchHealth() {
  const place = document.getElementById("health");
  const forever = new AbortController().signal;
  for (;;) {
    if (!document.hidden) {
      const [tone, words] = await health();
      place.className = `health ${tone}`;
      say(place, words);
    }
    await pause(HEALTH_EVERY_MS, forever);
  }
}

async function health() {
  try {
    await ask("health");
    return ["right", "● ready"];
  } catch (error) {
    return ["wrong", error.status === 503 ? "● an engine is down" : "● no connection"];
  }
}

addEventListener("hashchange", () => { if (location.hash !== "#main") route(); });
addEventListener("key-wanted", askForKey);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
route();
watchHealth();
