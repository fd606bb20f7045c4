// A volume with its labels over it, in three planes, drawn by NiiVue. Where the browser has no WebGL 2, or the server no
// NiiVue, the caller shows a picture instead.

const STEPS = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };

export async function canShow() {
  if (!document.createElement("canvas").getContext("webgl2")) return false;
  return loaded().then(() => true, () => false);
}

export class Viewer {
  // `labels` are {index, colour}; the blobs are .nii.gz files.
  static async over(canvas, volume, labelMap, labels, tell) {
    const viewer = new Viewer();
    viewer.nv = new globalThis.niivue.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.34, 0.71, 0.91, 0.8],
      crosshairWidth: 0.3,
      crosshairWidthUnit: "percent",
      dragAndDropEnabled: false,
      isRadiologicalConvention: true,
      isOrientationTextVisible: true,
      isColorbar: false,
      fontMinPx: 22,
      fontColor: [1, 0.85, 0.3, 1],
      multiplanarLayout: 2, // two by two
      multiplanarShowRender: 0,
      multiplanarPadPixels: 4,
      loadingText: "",
      logLevel: "error",
    });
    viewer.nv.onLocationChange = (place) => tell(place);
    await viewer.nv.attachToCanvas(canvas);
    const addresses = [volume, labelMap].filter(Boolean).map((blob) => URL.createObjectURL(blob));
    const names = ["volume.nii.gz", "labels.nii.gz"];
    await viewer.nv.loadVolumes(addresses.map((url, k) => ({ url, name: names[k] })));
    addresses.forEach((url) => URL.revokeObjectURL(url));
    viewer.labels = labels;
    viewer.hidden = new Set();
    if (labelMap) viewer.paint();
    canvas.addEventListener("keydown", (event) => viewer.key(event), { capture: true });
    viewer.nv.createOnLocationChange();
    return viewer;
  }

  paint() {
    const last = Math.max(...this.labels.map((label) => label.index));
    const table = { R: [], G: [], B: [], A: [], I: [], labels: [] };
    for (let k = 0; k <= last; k++) {
      const label = this.labels.find((one) => one.index === k);
      const shown = k > 0 && label && !this.hidden.has(k);
      const [r, g, b] = [1, 3, 5].map((at) => parseInt((label ? label.colour : "#000000").slice(at, at + 2), 16));
      table.R.push(r);
      table.G.push(g);
      table.B.push(b);
      table.A.push(shown ? 255 : 0);
      table.I.push(k);
      table.labels.push("");
    }
    this.nv.volumes[1].setColormapLabel(table);
    this.nv.updateGLVolume();
  }

  hide(index, away) {
    away ? this.hidden.add(index) : this.hidden.delete(index);
    this.paint();
  }

  opacity(share) {
    if (this.nv.volumes.length > 1) this.nv.setOpacity(1, share);
  }

  radiological(yes) {
    this.nv.setRadiologicalConvention(yes);
  }

  plane(name) {
    const kinds = { all: this.nv.sliceTypeMultiplanar, axial: this.nv.sliceTypeAxial, coronal: this.nv.sliceTypeCoronal, sagittal: this.nv.sliceTypeSagittal };
    this.nv.setSliceType(kinds[name]);
  }

  key(event) {
    const step = STEPS[event.key];
    if (event.key === "Tab" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopImmediatePropagation(); // NiiVue has keys of its own, which nothing here explains
    if (!step) return;
    event.preventDefault();
    this.nv.moveCrosshairInVox(...step);
  }

  close() {
    this.nv.cleanup?.();
    this.nv.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

let loading = null;

// The library is large, so it comes with the first volume.
function loaded() {
  loading ||= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "vendor/niivue.umd.js";
    script.onload = resolve;
    script.onerror = () => reject(new Error("The viewer could not be loaded."));
    document.head.append(script);
  });
  return loading;
}
