// Draws a result: the image with its labels, or what was said of it, the numbers, and what can be kept.

import { file } from "./api.js";
import { Viewer, canShow } from "./volume.js";

const RADIOLOGICAL = "Radiological convention: the patient’s right is on the left side of the picture.";
const NEUROLOGICAL = "Neurological convention: the patient’s right is on the right side of the picture.";
let viewer = null;
let addresses = [];

// An element with attributes and children; text is text, whatever is in it.
export function made(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function clear() {
  viewer?.close();
  viewer = null;
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
}

export async function show(answer, network, places) {
  clear();
  places.title.textContent = `${answer.name}: ${headline(answer.found)}`;
  warn(places.warnings, answer.warnings);
  places.numbers.replaceChildren();
  places.view.replaceChildren();
  await keep(places.downloads, answer);
  if (answer.found.task === "segmentation") await segmented(answer, network, places);
  else await told(answer, network, places);
}

function headline(found) {
  if (found.task === "classification") return `${found.predicted}, ${percent(found.probabilities[found.predicted])}`;
  if (found.task === "regression") return `${found.target} ${precise(found.predicted)}`;
  const seen = Object.values(found.classes).filter((one) => one.voxels > 0).length;
  return seen ? `${seen} of ${Object.keys(found.classes).length} classes found` : "nothing found";
}

function warn(place, lines) {
  place.hidden = !lines.length;
  const told = lines.map((line) => made("li", { textContent: line }));
  place.replaceChildren(made("p", {}, made("strong", { textContent: "Before you rely on it:" })), made("ul", {}, ...told));
}

// --- segmentation --------------------------------------------------------------------------------------------------------

async function segmented(answer, network, places) {
  const labels = network.labels.filter((label) => label.index > 0);
  const volume = answer.files["volume.nii.gz"];
  let hide = null;
  if (volume && (await canShow())) hide = await volumeView(answer, labels, places.view);
  else if (volume) places.view.append(await picture(answer.files["preview.png"], "Slices without and with their labels", "preview"));
  else hide = await pictureView(answer, labels, places.view);
  places.numbers.append(table(answer.found, labels, hide));
}

async function volumeView(answer, labels, place) {
  const where = made("p", { className: "where quiet", textContent: "\u00a0" });
  const canvas = made("canvas", { tabIndex: 0, id: "volume", role: "img" });
  canvas.setAttribute("aria-label", "The volume in three planes. Arrow keys and Page Up, Page Down move the crosshair.");
  const convention = made("p", { className: "quiet", id: "convention", textContent: RADIOLOGICAL });
  const frame = made("div", { className: "canvas" }, canvas);
  place.append(frame, where, convention);
  const [image, map] = await Promise.all([file(answer.files["volume.nii.gz"]), file(labelMap(answer))]);
  const names = new Map(labels.map((label) => [label.index, label.name]));
  const tell = (at) => {
    const index = Math.round(at.values[1]?.value ?? 0);
    const [x, y, z] = Array.from(at.mm).map((n) => n.toFixed(1));
    where.textContent = `${x}, ${y}, ${z} mm · value ${precise(at.values[0].value)}${index ? ` · ${names.get(index)}` : ""}`;
  };
  viewer = await Viewer.over(canvas, image, map, labels, tell);
  const shown = viewer;
  const planes = ["all", "axial", "coronal", "sagittal"].map((name) => made("option", { value: name, textContent: name === "all" ? "all planes" : name }));
  const plane = made("select", { id: "plane", onchange: () => shown.plane(plane.value) }, ...planes);
  plane.setAttribute("aria-label", "Plane");
  const flip = made("input", { type: "checkbox", id: "neurological" });
  flip.onchange = () => {
    shown.radiological(!flip.checked);
    convention.textContent = flip.checked ? NEUROLOGICAL : RADIOLOGICAL;
  };
  const controls = made("div", { className: "row controls" }, slider((share) => shown.opacity(share)), plane, made("label", { className: "check" }, flip, "patient’s right on the right"));
  place.append(controls, made("p", { className: "quiet", textContent: "Click or drag to move through it, scroll for the next slice; arrow keys, Page Up and Page Down do the same." }));
  shown.opacity(0.5);
  return (index, away) => shown.hide(index, away);
}

async function pictureView(answer, labels, place) {
  const image = await picture(answer.files["image.png"], answer.name, "below");
  const canvas = made("canvas", { id: "overlay" });
  canvas.setAttribute("aria-hidden", "true");
  const bitmap = await createImageBitmap(await file(answer.files["overlay.png"]));
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const hidden = new Set();
  const draw = () => {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const away = labels.filter((label) => hidden.has(label.index)).map((label) => label.colour.toLowerCase());
    for (let k = 0; away.length && k < pixels.data.length; k += 4) {
      const colour = `#${[0, 1, 2].map((n) => pixels.data[k + n].toString(16).padStart(2, "0")).join("")}`;
      if (away.includes(colour)) pixels.data[k + 3] = 0;
    }
    context.putImageData(pixels, 0, 0);
  };
  draw();
  canvas.style.opacity = 0.5;
  place.append(made("div", { className: "stack" }, image, canvas), made("div", { className: "row controls" }, slider((share) => (canvas.style.opacity = share))));
  return (index, away) => {
    away ? hidden.add(index) : hidden.delete(index);
    draw();
  };
}

function slider(change) {
  const input = made("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.5, id: "opacity" });
  input.oninput = () => change(Number(input.value));
  return made("label", { className: "check" }, "labels", input);
}

function labelMap(answer) {
  return Object.entries(answer.files).find(([name]) => /_dseg\.(nii\.gz|png)$/.test(name))[1];
}

function table(found, labels, hide) {
  const unit = { mm3: "mL", mm2: "cm²", pixels: "pixels" }[found.unit];
  const scale = { mm3: 1000, mm2: 100, pixels: 1 }[found.unit];
  const rows = labels.map((label) => {
    const one = found.classes[label.name];
    const box = made("input", { type: "checkbox", checked: true, disabled: !hide || !one.voxels });
    box.onchange = () => hide(label.index, !box.checked);
    const dot = made("span", { className: "dot" });
    dot.style.background = label.colour;
    const name = made("label", { className: "check" }, ...(hide ? [box] : []), dot, label.name);
    const size = made("td", { textContent: one.voxels ? precise(one.volume / scale) : "–" });
    return made("tr", { className: one.voxels ? "" : "none" }, made("th", { scope: "row" }, name), size);
  });
  const head = made("tr", {}, made("th", { scope: "col", textContent: "class" }), made("th", { scope: "col", textContent: unit }));
  return made("table", { id: "classes" }, made("thead", {}, head), made("tbody", {}, ...rows));
}

// --- classification and regression ---------------------------------------------------------------------------------------

async function told(answer, network, places) {
  const looked = answer.files["saliency.png"];
  if (looked) places.view.append(await picture(looked, "The part that was looked at, and where the output is sensitive", "saliency"), made("p", { className: "quiet", textContent: "Left what the network looked at; right, the brighter the more the output depends on that place. It shows where, not why." }));
  else places.view.append(await picture(answer.files["preview.png"], "What the network looked at", "preview"));
  const found = answer.found;
  if (found.task === "regression") {
    places.numbers.append(made("p", { className: "number" }, made("span", { textContent: precise(found.predicted) }), ` ${found.target}`));
    return;
  }
  places.numbers.append(bars(found, network.labels), made("p", { className: "quiet", textContent: found.calibrated ? "Probabilities are calibrated on the validation cases of the training." : "Probabilities are not calibrated: they may be far too sure." }));
}

function bars(found, labels) {
  const order = labels.map((label) => label.name).sort((a, b) => found.probabilities[b] - found.probabilities[a]);
  const rows = order.map((name) => {
    const share = found.probabilities[name];
    const fill = made("span");
    fill.style.width = `${100 * share}%`;
    return made("tr", { className: name === found.predicted ? "first" : "" }, made("th", { scope: "row", textContent: name }), made("td", { className: "bar" }, fill), made("td", { textContent: percent(share) }));
  });
  return made("table", { id: "bars" }, made("tbody", {}, ...rows));
}

// --- files ---------------------------------------------------------------------------------------------------------------

async function picture(address, words, id) {
  const source = URL.createObjectURL(await file(address));
  addresses.push(source);
  const image = made("img", { src: source, alt: words, id });
  await image.decode();
  return image;
}

async function keep(place, answer) {
  const map = Object.keys(answer.files).find((name) => /_dseg\.(nii\.gz|png)$/.test(name));
  const wanted = [[map, "Label map", "primary"], ["saliency.png", "Saliency", ""], ["statistics.json", "Numbers", ""], ["result.zip", "Everything (.zip)", map ? "" : "primary"]];
  const buttons = wanted.filter(([name]) => name in answer.files).map(([name, words, kind]) => {
    const button = made("button", { type: "button", className: kind, textContent: words });
    button.setAttribute("data-file", name);
    button.onclick = () => save(answer, name);
    return button;
  });
  place.replaceChildren(...buttons);
}

// By way of a blob, as a link could not carry the token.
async function save(answer, name) {
  const title = answer.found.case;
  const source = URL.createObjectURL(await file(answer.files[name]));
  const named = name.startsWith("image_") ? title + name.slice("image".length) : `${title}_${name}`;
  made("a", { href: source, download: named }).click();
  setTimeout(() => URL.revokeObjectURL(source), 60000);
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function precise(number) {
  return Math.abs(number) >= 1000 ? Math.round(number).toLocaleString("en") : String(Number(number.toPrecision(4)));
}
