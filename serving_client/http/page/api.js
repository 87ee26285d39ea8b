// The service's answers, its errors as one class, and the key of this tab.

const STORED = "pinfeather.key";
let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return ""; // storage is forbidden here: the key lives as long as the page
  }
}

/** Keep `text` as this tab's key; "" forgets it. */
export function useKey(text) {
  key = text;
  try {
    if (text) sessionStorage.setItem(STORED, text);
    else sessionStorage.removeItem(STORED);
  } catch {
    // as above
  }
}

/** Whether a key is kept. */
export function hasKey() {
  return key !== "";
}

/** What the service, or the way to it, has against a request. */
export class ServiceError extends Error {
  constructor(code, message, requestId = null) {
    super(message);
    this.code = code;
    this.requestId = requestId;
  }
}

/** The answer of GET `path`, or of POST with `body`. Throws ServiceError, and AbortError if `signal` fires. */
export async function call(path, body = null, signal = undefined) {
  const headers = { Accept: "application/json" };
  if (key) headers["X-Api-Key"] = key;
  if (body) headers["Content-Type"] = "application/json";
  const request = { method: body ? "POST" : "GET", headers, signal, cache: "no-store", credentials: "omit" };
  if (body) request.body = JSON.stringify(body);
  let response, text;
  try {
    response = await fetch(path, request);
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("unreachable", "The service does not answer. Is it running, and is this machine online?");
  }
  const answer = parsed(text);
  if (response.ok && answer !== null) return answer;
  const told = answer?.error;
  throw new ServiceError(
    told?.code ?? (response.status === 401 ? "unauthorized" : `status ${response.status}`),
    told?.message ?? `The service answered ${response.status} without saying why.`,
    told?.request_id ?? response.headers.get("X-Request-Id"),
  );
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
