// A pin as a card: picture, words, facts, and whatever stands at its right.

import { h, spoken, webAddress } from "./dom.js";

const TITLES = ["pin_text__title", "pin_captions__caption", "pin_text__description", "pin_link_text__link_title"];
const LISTS = ["pin_engaged_queries__engaged_queries", "pin_board_titles__board_titles"];
const BODIES = ["pin_text__description", "pin_captions__caption", "pin_link_text__link_description"];

/** What a reader would call the pin: its first known words, else its id. */
export function pinTitle(hit) {
  const content = hit.content ?? {};
  const own = TITLES.map((column) => content[column]).find(isText);
  const lent = LISTS.map((column) => content[column]?.[0]).find(isText);
  return own ?? (lent ? `(${lent})` : hit.pin_id);
}

/**
 * The card of a hit.
 *
 * options: `rank`, `side` (elements at the right), `below` (elements under the words), `marks` (after the rank),
 * `onRelated` (called with the hit).
 */
export function card(hit, { rank, side = [], below = [], marks = [], onRelated }) {
  const title = pinTitle(hit);
  const content = hit.content ?? {};
  const body = BODIES.map((column) => content[column]).find((text) => isText(text) && text !== title);
  const lang = languageOf(content);
  return h(
    "li",
    { class: "pin", "data-pin": hit.pin_id },
    picture(hit, title),
    h(
      "div",
      { class: "words" },
      h(
        "h3",
        {},
        h("span", { class: "rank" }, String(rank)),
        spoken(". "),
        ...marks,
        h("span", { class: "title", dir: "auto", lang }, title),
      ),
      body ? h("p", { class: "body", dir: "auto", lang }, body) : null,
      h("p", { class: "facts muted" }, ...facts(hit, content)),
    ),
    h("div", { class: "side" }, ...side),
    h(
      "div",
      { class: "below" },
      ...below,
      h(
        "button",
        { type: "button", class: "quiet", "data-related": hit.pin_id, onclick: () => onRelated(hit) },
        "Related pins",
        spoken(` of ${title}`),
      ),
    ),
  );
}

function isText(value) {
  return typeof value === "string" && value.trim() !== "";
}

function languageOf(content) {
  const lang = content.pin_text__lang;
  return isText(lang) && /^[a-z]{2,3}$/i.test(lang) ? lang : null;
}

function facts(hit, content) {
  const link = webAddress(content.pin_link_text__link_url);
  const day = content.pin_text__created_at;
  const parts = [
    h("span", {}, spoken("pin "), hit.pin_id),
    isText(content.pin_text__lang) ? h("span", {}, spoken("language "), content.pin_text__lang) : null,
    isText(content.pin_text__country) ? h("span", {}, spoken("country "), content.pin_text__country) : null,
    isText(day) ? h("span", {}, spoken("created "), day.slice(0, 10)) : null,
    link
      ? h("a", { href: link.href, target: "_blank", rel: "noopener noreferrer" }, link.host, spoken(" (new tab)"))
      : null,
  ];
  return parts.filter((part) => part !== null);
}

/** The pin's picture where a view serves its address; a drawn one until it has come, or if it never does. */
function picture(hit, title) {
  const box = h("div", { class: "picture", "aria-hidden": "true" }, ([...title.replace(/^\(/, "").trim()][0] ?? "(").toUpperCase());
  box.style.setProperty("--hue", String(hue(hit.pin_id)));
  const column = Object.keys(hit.content ?? {}).find((name) => name.endsWith("__image_uri"));
  const address = column ? webAddress(hit.content[column]) : null;
  if (address) {
    const image = h("img", { alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer" });
    image.addEventListener("load", () => box.replaceChildren(image));
    image.addEventListener("error", () => image.remove());
    image.src = address.href;
    box.append(image); // a lazy image loads only in the document
  }
  return box;
}

/** A colour that stays with the pin (FNV-1a of its id). */
function hue(text) {
  let hash = 2166136261;
  for (const character of text) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  return (hash >>> 0) % 360;
}
