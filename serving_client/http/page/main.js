// The page: what the reader does becomes a state, the state an address, and the address what is shown.

import { call, useKey } from "./api.js";
import { pinTitle } from "./cards.js";
import { comparison } from "./compare.js";
import { count, h } from "./dom.js";
import { fillForm, focusQuery, onSearch, readForm } from "./form.js";
import { closeRelated, onRelatedClosed, openRelated } from "./related.js";
import { degradedNotice, failure, hitList, nothing, provenance, welcome } from "./results.js";
import { address, before, PAGE, readState, sameResults, searchBody } from "./state.js";
import { refreshStatus, watchStatus } from "./status.js";

const answer = document.getElementById("answer");
const main = document.getElementById("results");
const pages = document.getElementById("pages");
const told = document.getElementById("told");
const keyForm = document.getElementById("key");

let state = readState(location.search);
let shown = null; // the state whose results stand in the page
let running = null; // the requests for the results under way
let depth = 0; // steps back in the history to where no panel was open yet; 0 where a link opened it
const names = new Map(); // pin id to its title, of what was shown

function go(next) {
  depth = next.related && (depth || !state.related) ? depth + 1 : 0;
  state = next;
  history.pushState({ depth }, "", address(next));
  return show();
}

async function show() {
  document.title = state.q ? `${state.q} – Pinfeather` : "Pinfeather";
  if (!sameResults(state, shown)) await search();
  if (state.related) {
    await openRelated(state, names.get(state.related) ?? state.related, { onRelated, onKey: askKey });
  } else {
    closeRelated();
  }
}

async function search() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const wanted = state;
  shown = wanted;
  pages.hidden = true;
  if (!wanted.q) {
    answer.setAttribute("aria-busy", "false");
    answer.replaceChildren(welcome());
    tell("");
    return;
  }
  answer.setAttribute("aria-busy", "true");
  tell("Searching …");
  const bodies = wanted.compare ? [searchBody(wanted, 1), searchBody(wanted, 2)] : [searchBody(wanted)];
  const settled = await Promise.allSettled(bodies.map((body) => call("v1/search", body, signal)));
  if (signal.aborted) return;
  answer.setAttribute("aria-busy", "false");
  const answers = settled.map((each) => each.value ?? each.reason);
  const refused = answers.find((each) => each.code === "unauthorized");
  if (refused) return askKey(refused);
  keyForm.hidden = true;
  for (const each of answers) for (const hit of each.hits ?? []) names.set(hit.pin_id, pinTitle(hit));
  if (wanted.compare) showComparison(wanted, answers);
  else showList(wanted, answers[0]);
}

function showList(wanted, found) {
  if (found instanceof Error) {
    tell("");
    answer.replaceChildren(failure(found, retry));
    return;
  }
  const earlier = before(wanted);
  if (!found.hits.length && !earlier) {
    tell("No pins found.");
    answer.replaceChildren(...[degradedNotice(found), nothing(wanted, clearFilters)].filter((part) => part !== null));
    return;
  }
  const list = hitList(found, { before: earlier, onRelated });
  answer.replaceChildren(...[degradedNotice(found), list, provenance(found)].filter((part) => part !== null));
  const last = earlier + found.hits.length;
  tell(earlier ? `Pins ${earlier + 1} to ${last} for “${wanted.q}”` : `${count(last, "pin")} for “${wanted.q}”`);
  const closed = { ...wanted, related: "", side: "" };
  const next = found.next_cursor ? { ...closed, cursor: found.next_cursor, rank: String(last) } : null;
  const first = earlier ? { ...closed, cursor: "", rank: "" } : null;
  offerPages({ words: "First page", to: first, shown: toTop }, { words: `Next ${PAGE} pins`, to: next, shown: toTop });
}

/** Links to other states, where there are such; `shown` is called once one of them stands in the page. */
function offerPages(first, next) {
  const links = [first, next].filter(({ to }) => to !== null);
  pages.replaceChildren(
    ...links.map(({ words, to, shown }) => {
      const rel = to === next.to ? "next" : null;
      return h("a", { href: address(to), rel, onclick: (event) => turn(event, to, shown) }, words);
    }),
  );
  pages.hidden = !links.length;
}

async function turn(event, next, shown) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab, as for any link
  event.preventDefault();
  await go(next);
  shown();
}

function toTop() {
  main.focus();
  scrollTo({ top: 0 });
}

/** The reader of two lists that have grown stays where the new pins begin. */
function toNew() {
  const rows = answer.querySelectorAll(`.column .pin:nth-child(${before(state) + 1}) button`);
  (rows[0] ?? main).focus();
}

function showComparison(wanted, answers) {
  const sides = [
    [wanted.scorer, wanted.space],
    [wanted.scorer2, wanted.space2],
  ].map(([scorer, space], side) => `${scorer || answers[side].scorer || "best there is"}, ${space || "live space"}`);
  answer.replaceChildren(...comparison(answers, sides, { onRelated, onRetry: retry }));
  const more = before(wanted);
  tell(`Two lists${more ? ` of up to ${count(more + PAGE, "pin")}` : ""} for “${wanted.q}”`);
  const closed = { ...wanted, related: "", side: "" };
  const next = answers.some((each) => each.next_cursor) ? { ...closed, rank: String(more + PAGE) } : null;
  const first = more ? { ...closed, rank: "" } : null;
  offerPages(
    { words: `Only the first ${PAGE}`, to: first, shown: toTop },
    { words: `${PAGE} more of both lists`, to: next, shown: toNew },
  );
}

function tell(text) {
  told.textContent = text;
}

function retry() {
  shown = null;
  show();
}

function clearFilters() {
  const next = { ...state, lang: "", country: "", since: "", safe: "" };
  fillForm(next);
  go(next);
  focusQuery();
}

/** Open the pins related to a hit of the first list (side 0), of the second, or of an open panel, which keeps its side. */
function onRelated(hit, side = state.side === "B" ? 1 : 0) {
  names.set(hit.pin_id, pinTitle(hit));
  go({ ...state, related: hit.pin_id, side: side ? "B" : "" });
}

/** Offer the key form; the reader is not interrupted where only the state was refused. */
function offerKey(error) {
  document.getElementById("key-why").textContent = error.message;
  keyForm.hidden = false;
}

function askKey(error) {
  closeRelated();
  shown = null;
  answer.setAttribute("aria-busy", "false");
  answer.replaceChildren();
  tell("");
  offerKey(error);
  keyForm.elements.key.focus();
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = keyForm.elements.key.value.trim();
  if (!/^[\x21-\x7e]+$/.test(text)) {
    document.getElementById("key-why").textContent = "A key has neither spaces nor letters beyond ASCII.";
    return;
  }
  useKey(text);
  keyForm.reset();
  keyForm.hidden = true;
  refreshStatus(status);
  show();
});

function onForget() {
  useKey("");
  refreshStatus(status);
  retry();
}

const status = { onForget, onKey: offerKey };

onSearch(() => {
  shown = null; // the same search again asks again
  go(readForm());
});
onRelatedClosed(() => {
  if (depth) history.go(-depth);
  else go({ ...state, related: "", side: "" });
});
addEventListener("popstate", (event) => {
  const next = readState(location.search);
  if (address(next) === address(state)) return; // a step within the page, such as the skip link
  state = next;
  depth = event.state?.depth ?? 0;
  fillForm(state);
  show();
});
fillForm(state);
depth = history.state?.depth ?? 0;
watchStatus(status);
show();
