// What is shown, as one flat object of texts. The address carries it, so that links, reload and the back button work.

export const EMPTY = Object.freeze({
  q: "", // the query
  lang: "", // codes, separated by commas
  country: "",
  since: "", // a day, 2026-05-01
  safe: "", // yes, no
  scorer: "", // empty: the service's default, as in space
  space: "",
  compare: "", // yes
  scorer2: "",
  space2: "",
  cursor: "", // where this page of results begins
  rank: "", // how many pins stand before it; of a comparison, how many more than the first page each list has
  related: "", // the pin whose related pins lie open
  side: "", // B where it was opened from the second list
});

export const SCORERS = ["student", "zero-shot", "bm25"]; // in the order of falling back
export const PAGE = 10; // pins a page
const MOST = 1000; // pins of one answer

/** The state in a query string. */
export function readState(search) {
  const given = new URLSearchParams(search);
  return Object.fromEntries(Object.keys(EMPTY).map((name) => [name, given.get(name) ?? ""]));
}

/** The address of a state. */
export function address(state) {
  const named = Object.entries(state).filter(([, value]) => value !== "");
  return named.length ? `?${new URLSearchParams(named)}` : "./";
}

/** The states have the same results, whatever else differs. */
export function sameResults(one, other) {
  const panel = ["related", "side"];
  return other !== null && Object.keys(EMPTY).every((name) => panel.includes(name) || one[name] === other[name]);
}

/** How many pins stand before the page of a state, or are added to the lists of a comparison. */
export function before(state) {
  const rank = Number.parseInt(state.rank, 10);
  return rank > 0 ? Math.min(rank, MOST - PAGE) : 0;
}

/** The space whose pins an open panel relates. */
export function relatedSpace(state) {
  return state.side === "B" && state.compare ? state.space2 : state.space;
}

/** The filters of a state as the service takes them. */
export function filters(state) {
  const body = {};
  const lang = codes(state.lang);
  const country = codes(state.country);
  if (lang.length) body.lang = lang;
  if (country.length) body.country = country;
  if (state.since) body.created_after = `${state.since}T00:00:00Z`;
  if (state.safe === "yes" || state.safe === "no") body.safe = state.safe === "yes";
  return body;
}

function codes(text) {
  return text.split(/[\s,;]+/).filter((code) => code !== "");
}

/** The body of a search; `side` 2 is the second list of a comparison. */
export function searchBody(state, side = 1) {
  const [scorer, space] = side === 2 ? [state.scorer2, state.space2] : [state.scorer, state.space];
  // The lists of a comparison grow instead of turning pages: a pin that is on another page of one is in it all the same.
  const limit = state.compare ? before(state) + PAGE : PAGE;
  const body = { query: state.q, limit, content: true, explain: true, ...filters(state) };
  if (scorer) body.scorer = scorer;
  if (space) body.space = space;
  if (state.cursor && !state.compare) body.cursor = state.cursor;
  return body;
}
