// The page: choose a network, give it an image, watch it, see and keep what it says.

import * as api from "./api.js";
import { clear, made, show } from "./show.js";

const place = Object.fromEntries(Array.from(document.querySelectorAll("[id]"), (element) => [element.id, element]));
const TASKS = { segmentation: "marks every voxel", classification: "tells classes apart", regression: "estimates a number" };
let offered = { models: [] };
let running = null; // {stop, address}
let last = null; // the address of the result that is shown

async function start() {
  try {
    offered = await api.models();
  } catch (error) {
    place.unlock.hidden = error.status !== 401;
    if (error.status !== 401) refuse(error);
    else if (place.token.value) refuse({ message: "That is not the token." });
    return;
  }
  place.unlock.hidden = true;
  place.refusal.hidden = true;
  place.ask.hidden = false;
  place.model.replaceChildren(...offered.models.map((one) => made("option", { value: one.name, textContent: one.name })));
  place.takes.textContent = `${offered.takes}; up to ${Math.round(offered.most_bytes / 2 ** 20)} MiB`;
  describe();
}

function chosen() {
  return offered.models.find((one) => one.name === place.model.value);
}

function describe() {
  const one = chosen();
  const kind = one.dims === 3 ? "volumes" : "pictures";
  const names = one.labels.filter((label) => one.task !== "segmentation" || label.index > 0).map((label) => label.name);
  const list = names.length > 12 ? `${names.slice(0, 12).join(", ")} and ${names.length - 12} more` : names.join(", ");
  place.about.textContent = `${TASKS[one.task]} in ${kind} of ${one.channels.join(", ")}${list ? `: ${list}` : ""}. Trained on ${one.data}.`;
  place.times.textContent = `(${2 ** one.dims} times the work)`;
}

function refuse(error) {
  const again = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  place.refusal.textContent = (error.status === 503 ? "The server is busy. " : "") + (error.message || "Something went wrong.") + (error.status === 503 ? "" : again);
  place.refusal.hidden = false;
  place.refusal.scrollIntoView({ block: "nearest" });
}

async function predict(image) {
  if (running || !image) return;
  const model = chosen();
  const stop = new AbortController();
  running = { stop, address: null };
  place.refusal.hidden = true;
  leave();
  busy(true);
  try {
    if (image.size > offered.most_bytes) throw new api.Refusal(413, `${image.name} has ${Math.ceil(image.size / 2 ** 20)} MiB, this server takes up to ${Math.round(offered.most_bytes / 2 ** 20)} MiB.`);
    step(`Sending ${image.name}`, 0);
    running.address = await api.send(image, model.name, place.flips.checked, (share) => step(share < 1 ? `Sending ${image.name}` : `Checking ${image.name}`, share < 1 ? share : null), stop.signal);
    const answer = await api.result(running.address, watch, stop.signal);
    step("Drawing", null);
    last = running.address;
    place.result.hidden = false;
    await show(answer, model, place);
    place.kept.replaceChildren("The server keeps this result for a while. ", made("button", { type: "button", className: "link", textContent: "Delete it now", onclick: remove }));
    place.title.focus({ preventScroll: true });
    place.result.scrollIntoView({ block: "start", behavior: "smooth" });
  } catch (error) {
    if (error.name !== "AbortError") {
      place.result.hidden = !place.title.textContent;
      refuse(error);
    }
  } finally {
    running = null;
    busy(false);
  }
}

function watch(answer) {
  const [done, all] = answer.windows || [0, 0];
  if (answer.state === "waiting") step(answer.ahead ? `Waiting: ${answer.ahead} before this one` : "Waiting", null);
  else if (!all) step("Looking at the image", null);
  else step(done < all ? `Looking at the image: part ${done} of ${all}` : "Writing the result", done / all);
}

function step(words, share) {
  place.step.textContent = `${words} …`;
  if (share === null) place.bar.removeAttribute("value");
  else place.bar.value = share;
}

function busy(yes) {
  place.work.hidden = !yes;
  place.ask.classList.toggle("busy", yes);
  for (const control of [place.model, place.file, place.example, place.flips]) control.disabled = yes;
  place.file.value = "";
}

function leave() {
  clear();
  last = null;
  place.title.textContent = "";
  place.result.hidden = true;
}

async function remove() {
  const address = last;
  leave();
  place.model.focus();
  try {
    await api.forget(address);
  } catch (error) {
    if (error.status !== 404) refuse(error);
  }
}

async function cancel() {
  const { stop, address } = running || {};
  stop?.abort();
  if (address) await api.forget(address).catch(() => {});
}

place.unlock.addEventListener("submit", (event) => {
  event.preventDefault();
  api.unlock(place.token.value);
  start();
});
place.model.addEventListener("change", describe);
place.file.addEventListener("change", () => predict(place.file.files[0]));
place.cancel.addEventListener("click", cancel);
place.example.addEventListener("click", async () => {
  try {
    await predict(await api.example(chosen().name));
  } catch (error) {
    refuse(error);
  }
});
for (const name of ["dragenter", "dragover"]) document.addEventListener(name, (event) => {
  event.preventDefault(); // else a file that misses the field would take the page's place
  place.drop.classList.toggle("over", place.drop.contains(event.target));
});
document.addEventListener("dragleave", () => place.drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  place.drop.classList.remove("over");
  if (event.dataTransfer.files.length > 1) refuse({ message: "One file at a time; put the files of a DICOM series into a zip." });
  else predict(event.dataTransfer.files[0]);
});
window.addEventListener("hashchange", () => location.reload()); // the address with a token, put into an open page
start();
