// The panel of pins like one pin.

import { call } from "./api.js";
import { card } from "./cards.js";
import { count, h, number } from "./dom.js";
import { degradedNotice, failure } from "./results.js";
import { filters, PAGE, relatedSpace } from "./state.js";

const dialog = document.getElementById("related");
const title = document.getElementById("related-title");
const told = document.getElementById("related-told");
const body = document.getElementById("related-body");
let running = null;
let shown = null;

/**
 * Show the pins related to `state.related`; `name` is what to call it, `onRelated` opens another pin, `onKey` is told
 * of a missing key.
 */
export async function openRelated(state, name, { onRelated, onKey }) {
  const space = relatedSpace(state);
  const request = JSON.stringify([state.related, space, filters(state)]);
  if (dialog.open && request === shown) return;
  running?.abort();
  running = new AbortController();
  shown = request;
  title.replaceChildren("Related to ", h("q", { dir: "auto" }, name));
  body.replaceChildren();
  told.textContent = "Looking …";
  if (!dialog.open) dialog.showModal();
  title.focus();
  const asked = { pin_id: state.related, limit: PAGE, content: true, ...filters(state) };
  if (space) asked.space = space;
  try {
    const answer = await call("v1/related-pins", asked, running.signal);
    told.textContent = summary(answer);
    body.replaceChildren(...filled(answer, onRelated));
  } catch (error) {
    if (error.name === "AbortError") return;
    shown = null;
    told.textContent = "";
    if (error.code === "unauthorized") onKey(error);
    else body.replaceChildren(failure(error, () => openRelated(state, name, { onRelated, onKey })));
  }
}

/** Close the panel, if it is open. */
export function closeRelated() {
  running?.abort();
  shown = null;
  if (dialog.open) dialog.close();
}

/** Call `left` when the reader closes the panel, by button, key or a click beside it. */
export function onRelatedClosed(left) {
  document.getElementById("related-close").addEventListener("click", () => leave(left));
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    leave(left);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && event.clientX < dialog.getBoundingClientRect().left) leave(left);
  });
}

/** Close at once: a second click, before the browser has gone back, would go back twice. */
function leave(left) {
  if (!dialog.open) return;
  closeRelated();
  left();
}

function summary(answer) {
  if (!answer.found) return `Pin ${answer.pin_id} has no vector in space ${answer.space}.`;
  if (!answer.hits.length) return "No pin like it was found.";
  return `${count(answer.hits.length, "pin")}, varied, near-duplicates folded · space ${answer.space}`;
}

function filled(answer, onRelated) {
  const cards = answer.hits.map((hit, index) => card(hit, { rank: index + 1, side: [nearness(hit)], onRelated }));
  return [degradedNotice(answer), cards.length ? h("ol", { class: "pins" }, ...cards) : null].filter((part) => part !== null);
}

function nearness(hit) {
  return h("p", { class: "measure" }, h("b", {}, number(hit.similarity)), " cosine");
}
