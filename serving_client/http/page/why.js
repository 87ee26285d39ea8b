// Why a pin has its level: the start that every pin has, what each feature added, and their sum.

import { h, number, signed } from "./dom.js";

const SHOWN = 8;
const SAME_FOR_ALL = new Set(["query_tokens", "query_rarity"]); // features of the query alone: no reason for one pin

/** A folded table of bars for an explanation; null where there is none. */
export function why(hit, title) {
  const explanation = hit.explanation;
  if (!explanation) return null;
  const ordered = Object.entries(explanation.contributions)
    .filter(([name, value]) => !SAME_FOR_ALL.has(name) && Number.isFinite(value))
    .sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]))
    .slice(0, SHOWN)
    .filter(([, value]) => Math.abs(value) >= 0.005);
  const all = Object.values(explanation.contributions).reduce((sum, value) => sum + value, 0);
  const rest = all - ordered.reduce((sum, [, value]) => sum + value, 0);
  const start = explanation.baseline + explanation.bias;
  const values = [...ordered.map(([, value]) => value), rest];
  const least = Math.min(0, ...values);
  const width = Math.max(0, ...values) - least || 1;
  const rows = [...ordered, ["all other features", rest]].map(([name, value]) => row(name, value, least, width));
  const folded = h(
    "details",
    { class: "why" },
    h("summary", {}, "Why", h("span", { class: "hidden" }, ` ${title} has its level`)),
    h(
      "table",
      {},
      h("caption", { class: "hidden" }, "What moved the expected level, in levels"),
      h(
        "thead",
        { class: "hidden" },
        h("tr", {}, ...["Feature", "Levels added", "Bar"].map((text) => h("th", { scope: "col" }, text))),
      ),
      h("tbody", {}, total("start of every pin", number(start)), ...rows),
      h("tfoot", {}, total("expected level", number(hit.expected_level))),
    ),
    probabilities(hit.probabilities),
  );
  folded.style.setProperty("--zero", String(-least / width)); // where the axis stands, as a share of the track
  return folded;
}

function row(name, value, least, width) {
  const bar = h("div", { class: value < 0 ? "bar minus" : "bar plus" });
  bar.style.setProperty("--from", String((Math.min(0, value) - least) / width));
  bar.style.setProperty("--share", String(Math.abs(value) / width));
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, name.replaceAll("_", " ")),
    h("td", { class: "figure" }, signed(value)),
    h("td", { class: "track", "aria-hidden": "true" }, bar),
  );
}

function total(name, text) {
  return h(
    "tr",
    { class: "total" },
    h("th", { scope: "row" }, name),
    h("td", { class: "figure" }, text),
    h("td", { "aria-hidden": "true" }),
  );
}

/** One line: how sure the head is of each level. */
function probabilities(values) {
  if (!values?.every(Number.isFinite)) return null;
  const most = Math.max(...values);
  const items = values.map((value, index) => {
    const column = h("span", { class: "column", "aria-hidden": "true" });
    column.style.setProperty("--share", String(value / most));
    return h("li", { "data-level": index + 1 }, column, h("span", {}, `${index + 1}: ${Math.round(value * 100)} %`));
  });
  return h("div", { class: "chances" }, h("p", { class: "muted" }, "Probability of each level"), h("ol", {}, ...items));
}
