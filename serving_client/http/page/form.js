// The search form: from the state to its fields and back.

import { h } from "./dom.js";
import { EMPTY, SCORERS } from "./state.js";

const form = document.getElementById("search");
const settings = document.getElementById("settings");
const other = document.getElementById("other");
let offered = null;
const FIELDS = ["q", "lang", "country", "since", "safe", "scorer", "space", "scorer2", "space2"];
const LABELS = { lang: "language", country: "country", since: "since", safe: "safe flag", scorer: "scorer", space: "space" };

/** Call `submitted` when the reader searches. */
export function onSearch(submitted) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submitted();
  });
  form.elements.compare.addEventListener("change", () => {
    reveal();
    if (form.elements.compare.checked) suggest();
  });
  settings.open = matchMedia("(min-width: 48rem)").matches;
  offer([], SCORERS);
}

/** The choices of the selectors: what the service has, and always what the state asks for. */
export function offer(spaces, scorers) {
  const both = JSON.stringify([spaces, scorers]);
  if (both === offered) return; // a selector that somebody has open must not change
  offered = both;
  for (const [name, values, first] of [
    ["scorer", scorers, "best there is"],
    ["scorer2", scorers, "best there is"],
    ["space", spaces, "live"],
    ["space2", spaces, "live"],
  ]) {
    const select = form.elements[name];
    const chosen = select.value;
    select.replaceChildren(h("option", { value: "" }, first), ...values.map((value) => h("option", { value }, value)));
    choose(select, chosen);
  }
}

/** Show `state` in the form. */
export function fillForm(state) {
  for (const name of FIELDS) {
    const field = form.elements[name];
    if (field instanceof HTMLSelectElement) choose(field, state[name]);
    else field.value = state[name];
  }
  form.elements.compare.checked = state.compare === "yes";
  if (state.compare) settings.open = true;
  reveal();
  note(state);
}

/** The state that the form asks for: a first page, nothing open. */
export function readForm() {
  const state = { ...EMPTY };
  for (const name of FIELDS) state[name] = form.elements[name].value.trim();
  if (form.elements.compare.checked) state.compare = "yes";
  else state.scorer2 = state.space2 = "";
  note(state);
  return state;
}

/** Put the cursor into the query. */
export function focusQuery() {
  form.elements.q.focus();
}

function choose(select, value) {
  const known = [...select.options].some((option) => option.value === value);
  if (!known) select.append(h("option", { value }, value)); // a link may name what this release lacks
  select.value = value;
}

function reveal() {
  other.hidden = !form.elements.compare.checked;
}

/** A second list that equals the first shows nothing: take another scorer. */
function suggest() {
  const { scorer, scorer2, space, space2 } = form.elements;
  if (scorer2.value === scorer.value && space2.value === space.value) {
    const values = [...scorer2.options].map((option) => option.value).filter(Boolean);
    const first = scorer.value || values[0]; // "best there is" means the first that there is
    scorer2.value = values.find((value) => value !== first) ?? "";
  }
}

/** Say beside the folded fields what they hold. */
function note(state) {
  const set = Object.keys(LABELS).filter((name) => state[name]);
  const parts = set.map((name) => `${LABELS[name]} ${state[name]}`);
  if (state.compare) parts.push("comparing");
  document.getElementById("settings-note").textContent = parts.length ? `· ${parts.join(", ")}` : "";
}
