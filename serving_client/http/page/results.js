// One answered search as a list of cards, and what there is to say where there is no list.

import { card, pinTitle } from "./cards.js";
import { count, h, number, spoken } from "./dom.js";
import { why } from "./why.js";

const LEVELS = ["no level", "irrelevant", "poor", "complementary", "good", "excellent"];
const MEASURES = { "zero-shot": "cosine", bm25: "BM25" };

/** The list of an answer's hits; `marks` gives a hit's marks, `before` is how many pins stand on earlier pages. */
export function hitList(answer, { before = 0, marks = () => [], onRelated }) {
  return h(
    "ol",
    { class: "pins", start: before + 1 },
    ...answer.hits.map((hit, index) =>
      card(hit, {
        rank: before + index + 1,
        side: level(hit, answer.scorer),
        below: [why(hit, pinTitle(hit))],
        marks: marks(hit, index),
        onRelated,
      }),
    ),
  );
}

/** The level as text, as five boxes and as a colour; the score alone where nothing gave levels. */
function level(hit, scorer) {
  const boxes = h("span", { class: "boxes", "aria-hidden": "true" });
  for (let each = 1; each <= 5; each += 1) boxes.append(h("i", { class: each <= hit.level ? "full" : "" }));
  const judged = hit.level > 0;
  return [
    judged ? h("p", { class: "level", "data-level": hit.level }, `${hit.level} ${LEVELS[hit.level]}`) : null,
    judged ? boxes : null,
    h(
      "p",
      { class: "measure" },
      h("b", {}, number(judged ? hit.expected_level : hit.score)),
      ` ${judged ? "expected" : (MEASURES[scorer] ?? "score")}`,
      judged ? spoken(" level") : null,
    ),
    judged ? h("p", { class: "measure muted" }, `${number(hit.similarity)} cosine`) : null,
  ].filter((part) => part !== null);
}

/** What was not as asked for, if anything. */
export function degradedNotice(answer) {
  if (!answer.degraded?.length) return null;
  const [first, ...others] = answer.degraded;
  const rest = others.length ? h("ul", {}, ...answer.degraded.map((reason) => h("li", {}, reason))) : null;
  return h("div", { class: "notice warn" }, h("p", {}, h("strong", {}, "Degraded "), rest ? null : first), rest);
}

/** How an answer came about, in one line. */
export function provenance(answer) {
  const parts = [
    `scored by ${answer.scorer}`,
    answer.space ? `space ${answer.space}` : null,
    answer.bundle ? `bundle ${answer.bundle}` : null,
    answer.release ? `release ${answer.release}` : null,
    count(answer.candidates, "candidate"),
  ];
  return h("p", { class: "muted provenance" }, parts.filter((part) => part !== null).join(" · "));
}

/** The page before any query. */
export function welcome() {
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, "Search the pins"),
    h("p", {}, "Every result has one of five levels of relevance, and says why it has it."),
    h(
      "ul",
      {},
      h("li", {}, "Open ", h("b", {}, "Why"), " under a pin for what each feature added to its level."),
      h("li", {}, h("b", {}, "Related pins"), " lists what lies near a pin."),
      h("li", {}, h("b", {}, "Compare with a second list"), " sets two scorers or two spaces side by side."),
    ),
  );
}

/** No hits. */
export function nothing(state, onClear) {
  const filtered = state.lang || state.country || state.since || state.safe;
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, "No pins found"),
    h("p", {}, filtered ? "No pin passes the filters." : "The store holds no pin for these words."),
    filtered ? h("button", { type: "button", class: "quiet", onclick: onClear }, "Clear the filters") : null,
  );
}

/** A failed request: what the service said, its code, and a way to try again. */
export function failure(error, onRetry) {
  return h(
    "div",
    { class: "notice bad", role: "alert" },
    h("p", {}, h("strong", {}, "That did not work"), spoken(". ")),
    h("p", { class: "message" }, error.message),
    h(
      "p",
      { class: "muted" },
      `Code ${error.code ?? "internal"}`,
      error.requestId ? `, request ${error.requestId}` : null,
    ),
    onRetry ? h("button", { type: "button", class: "quiet", onclick: onRetry }, "Try again") : null,
  );
}
