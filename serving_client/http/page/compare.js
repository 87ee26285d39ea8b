// Two answers to one query side by side, and which pins moved.

import { count, h, spoken } from "./dom.js";
import { degradedNotice, failure, hitList, provenance } from "./results.js";

/** The two columns; `answers` are answers or errors, A's and B's; `onRelated` is told of the hit and its side, 0 or 1. */
export function comparison(answers, names, { onRelated, onRetry }) {
  const lists = answers.map((answer) => (answer instanceof Error ? null : answer.hits.map((hit) => hit.pin_id)));
  const columns = answers.map((answer, side) =>
    h(
      "section",
      { class: "column", "aria-labelledby": `side-${side}` },
      h("h2", { id: `side-${side}` }, h("span", { class: "letter" }, "AB"[side]), " ", names[side]),
      ...(answer instanceof Error ? [failure(answer, onRetry)] : filled(answer, side, lists, onRelated)),
    ),
  );
  const both = h("div", { class: "columns" }, ...columns);
  for (const [kind, lit] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) {
    both.addEventListener(kind, (event) => light(both, event.target.closest(".pin")?.dataset.pin, lit));
  }
  return lists.includes(null) ? [both] : [h("p", { class: "summary" }, summary(...lists)), both];
}

function filled(answer, side, lists, onRelated) {
  const other = lists[1 - side];
  const marks = (hit, index) => (other === null ? [] : [mark(index, other.indexOf(hit.pin_id), side)]);
  const open = (hit) => onRelated(hit, side);
  const list = answer.hits.length ? hitList(answer, { marks, onRelated: open }) : h("p", { class: "empty" }, "No pins found.");
  return [provenance(answer), degradedNotice(answer), list].filter((part) => part !== null);
}

/** Where the pin of rank `here` stands in the other list, as a sign and as words. */
function mark(here, there, side) {
  const letter = "AB"[1 - side];
  if (there < 0) return chip("only", `only in ${"AB"[side]}`, "");
  const moved = there - here;
  if (moved === 0) return chip("same", "=", ` same place as in ${letter}`);
  const places = count(Math.abs(moved), "place");
  return moved > 0
    ? chip("up", `▲ ${moved}`, ` ${places} higher than in ${letter}`)
    : chip("down", `▼ ${-moved}`, ` ${places} lower than in ${letter}`);
}

function chip(kind, sign, words) {
  return h("span", { class: `mark ${kind}` }, h("span", { "aria-hidden": words ? "true" : null }, sign), spoken(words));
}

function summary(one, other) {
  const shared = one.filter((pin) => other.includes(pin));
  const moved = shared.filter((pin) => one.indexOf(pin) !== other.indexOf(pin));
  const total = new Set([...one, ...other]).size;
  if (shared.length === total && moved.length === 0) return `Both lists are the same: ${count(total, "pin")}.`;
  return `${shared.length} of ${count(total, "pin")} are in both lists; ${moved.length} of these changed their place.`;
}

function light(columns, pin, lit) {
  for (const each of columns.querySelectorAll(".pin")) each.classList.toggle("lit", lit && each.dataset.pin === pin);
}
