// What the page asks the server: the JSON API and nothing else. A refusal is an Error whose message can be shown.

const WAIT = 1; // seconds that the server holds an answer back for a result to be ready
let token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
if (token) history.replaceState(null, "", location.pathname); // not into bookmarks and screenshots

export class Refusal extends Error {
  constructor(status, line, retryAfter = 0) {
    super(line);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function unlock(word) {
  token = word;
}

export async function models() {
  return (await ask("api/models")).json();
}

export async function example(model) {
  const answer = await ask(`api/example/${encodeURIComponent(model)}`);
  const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") || "");
  return new File([await answer.blob()], named ? named[1] : "example");
}

// Send an image; `progress` hears the share that has been sent. Gives the address of the result.
export function send(image, model, flips, progress, signal) {
  const form = new FormData();
  form.append("model", model);
  form.append("flips", String(flips));
  form.append("image", image, image.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
    request.open("POST", "api/predict");
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = (event) => progress(event.loaded / Math.max(event.total, 1));
    request.onload = () => {
      const told = parsed(request.responseText);
      if (request.status === 202) resolve(told.result);
      else reject(new Refusal(request.status, told.error, Number(request.getResponseHeader("Retry-After")) || 0));
    };
    request.onerror = () => reject(new Refusal(0, "The server broke the connection off before the image was sent, or is gone."));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// Ask until the result is there; `progress` hears each answer on the way.
export async function result(address, progress, signal) {
  for (;;) {
    const answer = await (await ask(`${address}?wait=${WAIT}`, { signal })).json();
    if (answer.state === "done") return answer;
    progress(answer);
  }
}

export async function file(address) {
  return (await ask(address)).blob();
}

export async function forget(address) {
  await ask(address, { method: "DELETE" });
}

async function ask(address, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer.");
  }
  if (answer.ok) return answer;
  throw new Refusal(answer.status, parsed(await answer.text()).error, Number(answer.headers.get("Retry-After")) || 0);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { error: "The server's answer could not be read." };
  }
}
