// The bar at the foot: which release answers, how fresh it is, what is not well. Asked again every ten seconds.

import { call, hasKey } from "./api.js";
import { duration, h } from "./dom.js";
import { offer } from "./form.js";
import { SCORERS } from "./state.js";

const EVERY = 10_000;
const bar = document.getElementById("status");
let asking = false;

/**
 * Show the state of the service now, and again while the page is in view. `calls` are `onForget`, for the button that
 * forgets the key, and `onKey`, told that a key is missing.
 */
export function watchStatus(calls) {
  const look = () => document.visibilityState === "visible" && refreshStatus(calls);
  refreshStatus(calls);
  setInterval(look, EVERY);
  document.addEventListener("visibilitychange", look);
}

/** Ask for the state and show it. */
export async function refreshStatus({ onForget, onKey }) {
  if (asking) return;
  asking = true;
  try {
    const status = await call("v1/status", null, AbortSignal.timeout(8000));
    offer(status.spaces ?? [], status.scorers?.length ? status.scorers : SCORERS);
    bar.replaceChildren(...filled(status, onForget));
  } catch (error) {
    bar.replaceChildren(h("p", { class: "state bad" }, sign(), unknown(error)));
    if (error.code === "unauthorized") onKey(error);
  } finally {
    asking = false;
  }
}

function filled(status, onForget) {
  const degraded = status.degraded ?? [];
  const facts = [
    ["Release", status.release],
    ["Space", status.live_space],
    ["Bundle", status.bundle],
    ["Publication", published(status)],
    ["Query cache", cache(status.query_cache)],
  ];
  return [
    h("p", { class: degraded.length ? "state warn" : "state good" }, sign(), degraded.length ? "Degraded" : "All is well"),
    h("dl", {}, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value ?? "–")))),
    degraded.length ? h("ul", { class: "reasons" }, ...degraded.map((reason) => h("li", {}, reason))) : null,
    hasKey() ? h("button", { type: "button", class: "quiet", onclick: onForget }, "Forget the API key") : null,
  ].filter((part) => part !== null);
}

function sign() {
  return h("span", { class: "sign", "aria-hidden": "true" });
}

function unknown(error) {
  return error.code === "unauthorized" ? "The state is shown with an API key only" : `State unknown: ${error.message}`;
}

function published(status) {
  const number = status.publication ?? "–";
  return Number.isFinite(status.age) ? `${number}, ${duration(status.age)} ago` : String(number);
}

function cache(stats) {
  if (!stats) return null;
  const asked = stats.hits + stats.misses;
  return asked ? `${Math.round((100 * stats.hits) / asked)} % hits of ${asked}` : "not asked yet";
}
