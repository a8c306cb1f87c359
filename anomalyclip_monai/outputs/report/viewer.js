"use strict";
// Two stages with the same methods show a case: planes and 3D by NiiVue, or pictures of one plane on a canvas.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const multiply = (matrix, [x, y, z]) =>
  matrix.slice(0, 3).map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
const SIZE = data.shape;
const SLICES = data.scores.length;

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Connected parts of heat >= low that hold at least `smallest` voxels of heat >= value: -> 1 for lesion, their number
// and size. Neighbours share a face, an edge or a corner. `heat` is 8 bit, its first axis the fastest.
function lesionsAt(heat, [width, height, depth], value, low, smallest) {
  const [high, floor] = [Math.round(255 * value), Math.max(1, Math.round(255 * low))];
  const mask = new Uint8Array(heat.length), seen = new Uint8Array(heat.length);
  let [count, voxels] = [0, 0];
  for (let start = 0; start < heat.length; start++) {
    if (seen[start] || heat[start] < high) continue;
    const part = [start];
    let strong = 0;
    seen[start] = 1;
    for (let done = 0; done < part.length; done++) {
      const at = part[done];
      if (heat[at] >= high) strong++;
      const x = at % width, y = Math.floor(at / width) % height, z = Math.floor(at / (width * height));
      for (let k = Math.max(z - 1, 0); k <= Math.min(z + 1, depth - 1); k++)
        for (let j = Math.max(y - 1, 0); j <= Math.min(y + 1, height - 1); j++)
          for (let i = Math.max(x - 1, 0); i <= Math.min(x + 1, width - 1); i++) {
            const next = i + width * (j + height * k);
            if (seen[next] || heat[next] < floor) continue;
            seen[next] = 1;
            part.push(next);
          }
    }
    if (strong < smallest) continue;
    for (const at of part) mask[at] = 1;
    count++;
    voxels += part.length;
  }
  return { mask, count, voxels };
}

class Planes {
  static VIEWS = { axial: 0, coronal: 1, sagittal: 2, "3D": 4 }; // NiiVue's numbers

  static async make(canvas, moved) {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("This browser has no WebGL 2.");
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await unpacked(byId("niivue").textContent));
    document.head.append(script);
    const stage = new Planes();
    await stage.load(canvas, moved);
    return stage;
  }

  async load(canvas, moved) {
    const view = new niivue.Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, showAllOrientationMarkers: true, show3Dcrosshair: true,
      backColor: [0.06, 0.06, 0.07, 1], logLevel: "error",
      crosshairColor: [0.85, 0.54, 0, 0.8], crosshairWidth: 0.25, crosshairWidthUnit: "percent", crosshairGap: 2, fontColor: [0.8, 0.8, 0.8, 1], dragAndDropEnabled: false, fontMinPx: 12,
    });
    this.view = view;
    await view.attachToCanvas(canvas);
    this.drawOutlineOnTop();
    view.addColormap("anomaly", {
      R: data.colours.map((colour) => colour[0]), G: data.colours.map((colour) => colour[1]),
      B: data.colours.map((colour) => colour[2]), A: data.opacity, I: data.colours.map((_, index) => index),
    });
    const { image, heatmap, mask } = data.planes;
    const read = (base64, name, how) => niivue.NVImage.loadFromBase64({ base64, name: `${name}.nii.gz`, ...how });
    const [grey, warm, stored] = await Promise.all([
      read(image, "image", { colormap: "gray", cal_min: 0, cal_max: 255, colorbarVisible: false }),
      read(heatmap, "heatmap", { colormap: "anomaly", cal_min: 0, cal_max: 1, colorbarVisible: false }),
      unpacked(mask),
    ]);
    view.volumes = [grey, warm];
    view.overlayAlphaShader = 0;
    view.setVolume(warm, 1); // the one upload
    this.image = grey;
    this.heat = warm;
    this.stored = stored.map((value) => Math.sign(value));
    view.drawOpacity = 0.01; // the rim alone is seen
    view.drawRimOpacity = 1;
    view.drawLut.lut.set([...data.outline, 255], 4);
    view.refreshColormaps();
    view.onLocationChange = (location) => moved(multiply(data.inverse, Array.from(location.mm)));
    view.drawTexture = view.r8Tex(view.drawTexture, view.gl.TEXTURE7, view.back.dims, true);
    this.setMask(null);
  }

  // NiiVue draws the heatmap over a drawing's rim; its shader ends here with the rim once more.
  drawOutlineOnTop() {
    const { gl, sliceMMShader: { program } } = this.view;
    const source = gl.getAttachedShaders(program).map((shader) => gl.getShaderSource(shader)).find((text) => text.includes("dcolor"));
    const end = source.lastIndexOf("}");
    this.view.setCustomSliceShader(`${source.slice(0, end)}color.rgb = mix(color.rgb, dcolor.rgb, dcolor.a);}`);
  }

  get smallest() { return Math.max(1, Math.ceil((data.minVolume * (1 - 1e-6)) / data.planes.voxel)); }

  show(voxel) {
    this.view.scene.crosshairPos = this.view.mm2frac(multiply(data.affine, voxel));
    this.view.drawScene();
  }

  heatAt(voxel) {
    const [i, j, k] = this.heat.mm2vox(multiply(data.affine, voxel));
    return this.heat.getValue(i, j, k);
  }

  // Of thresholds, or null for the mask as stored: -> number of lesions and their ml.
  setMask(at) {
    let shown = this.stored, found = null;
    if (at) {
      const dims = this.heat.hdr.dims.slice(1, 4), [width, height, depth] = this.image.hdr.dims.slice(1, 4);
      found = lesionsAt(this.heat.img, dims, at.value, at.low, this.smallest);
      const [p, q, r] = data.planes.ratio;
      shown = new Uint8Array(width * height * depth);
      for (let k = 0, to = 0; k < depth; k++)
        for (let j = 0; j < height; j++) {
          const from = dims[0] * (Math.floor(j / q) + dims[1] * Math.floor(k / r));
          for (let i = 0; i < width; i++) shown[to++] = found.mask[from + Math.floor(i / p)];
        }
    }
    // Not by loadDrawing, which makes the texture anew each time and keeps a copy to undo it.
    this.view.drawBitmap = Object.assign(Object.create(this.image), { img: shown }).img2RAS();
    this.view.refreshDrawing();
    return found && { count: found.count, amount: `${((found.voxels * data.planes.voxel) / 1000).toFixed(2)} ml` };
  }

  setOutline(on) {
    this.view.drawRimOpacity = on ? 1 : 0;
    this.view.drawScene();
  }

  setOpacity(share) {
    this.view.overlayAlphaShader = share;
    this.view.opts.renderOverlayBlend = share;
    this.view.drawScene();
  }

  // All: the plane of the slices large, the others beside it, or below where the window is narrow.
  setView(name) {
    if (name !== "all") {
      this.view.clearCustomLayout();
      this.view.setSliceType(Planes.VIEWS[name]);
      return;
    }
    const others = Object.keys(Planes.VIEWS).filter((other) => other !== data.plane);
    const wide = this.view.canvas.clientWidth > 1.1 * this.view.canvas.clientHeight, third = 1 / 3;
    this.view.setCustomLayout([
      { sliceType: Planes.VIEWS[data.plane], position: wide ? [0, 0, 0.68, 1] : [0, 0, 1, 0.7] },
      ...others.map((other, index) => ({
        sliceType: Planes.VIEWS[other],
        position: wide ? [0.68, index * third, 0.32, third] : [index * third, 0.7, third, 0.3],
      })),
    ]);
  }
}

class Pictures {
  static async make(canvas, moved) {
    const stage = new Pictures();
    await stage.load(canvas, moved);
    return stage;
  }

  async load(canvas, moved) {
    const { frames, heatmaps, masks, size, aspect } = data.frames;
    this.canvas = canvas;
    this.frames = await Promise.all(frames.map(Pictures.picture));
    this.masks = await Promise.all(masks.map(Pictures.picture));
    const heats = (await Promise.all(heatmaps.map(Pictures.picture))).map((picture) => Pictures.pixels(picture));
    const [{ width, height }] = heats;
    this.dims = [width, height, heats.length];
    this.heat = new Uint8Array(width * height * heats.length);
    heats.forEach((heat, k) => { for (let i = 0; i < width * height; i++) this.heat[k * width * height + i] = heat.data[4 * i]; });
    const [wide, high] = [this.frames[0].width, this.frames[0].height];
    const scale = Math.max(1, 480 / Math.max(wide, high * aspect));
    const tall = (size[1] / size[0]) * aspect; // height over width as seen
    canvas.width = Math.round(wide * scale);
    canvas.height = Math.round(canvas.width * tall);
    this.share = 1;
    this.outline = true;
    this.changed = null;
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      moved(this.voxelAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
    });
    canvas.addEventListener("wheel", (event) => {
      if (SLICES < 2) return;
      event.preventDefault();
      bySlice(Math.sign(event.deltaY));
    }, { passive: false });
  }

  static async picture(address) {
    const picture = new Image();
    picture.src = address;
    await picture.decode();
    return picture;
  }

  static pixels(picture, width = picture.width, height = picture.height) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  get smallest() { return Math.max(1, Math.ceil((data.minVolume * (1 - 1e-6)) / data.frames.voxel)); }

  // Stored voxel -> place on the picture in [0, 1], and back.
  placeOf(voxel) {
    return [0, 1].map((way) => {
      const share = (voxel[data.frames.axes[way]] + 0.5) / data.frames.size[way];
      return data.frames.flips[way] ? 1 - share : share;
    });
  }

  voxelAt(...place) {
    const voxel = [...state.voxel];
    place.forEach((share, way) => {
      const turned = data.frames.flips[way] ? 1 - share : share;
      voxel[data.frames.axes[way]] = clamp(Math.floor(turned * data.frames.size[way]), 0, data.frames.size[way] - 1);
    });
    return voxel;
  }

  index(voxel) { // of the picture that stands for a slice
    const stride = data.frames.indices.length > 1 ? data.frames.indices[1] : SLICES || 1;
    return clamp(Math.floor(Math.round(voxel[data.axis]) / stride), 0, this.frames.length - 1);
  }

  heatAt(voxel) {
    const [width, height] = this.dims, [x, y] = this.placeOf(voxel);
    const [i, j] = [clamp(Math.floor(x * width), 0, width - 1), clamp(Math.floor(y * height), 0, height - 1)];
    return this.heat[i + width * (j + height * this.index(voxel))] / 255;
  }

  show(voxel = state.voxel) {
    const { canvas, dims: [width, height] } = this, index = this.index(voxel), context = canvas.getContext("2d");
    context.drawImage(this.frames[index], 0, 0, canvas.width, canvas.height);
    const warm = new OffscreenCanvas(width, height), colour = new ImageData(width, height);
    for (let at = 0; at < width * height; at++) {
      const heat = this.heat[index * width * height + at];
      colour.data.set([...data.colours[heat], data.opacity[heat]], 4 * at);
    }
    warm.getContext("2d").putImageData(colour, 0, 0);
    context.globalAlpha = this.share;
    context.drawImage(warm, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
    if (this.outline) this.drawOutline(context, index);
    this.drawCross(context, this.placeOf(voxel));
    this.drawLetters(context);
  }

  maskPicture(index) {
    if (!this.changed) return this.masks[index];
    const [width, height] = this.dims, picture = new OffscreenCanvas(width, height), pixels = new ImageData(width, height);
    for (let at = 0; at < width * height; at++)
      pixels.data.fill(this.changed[index * width * height + at] ? 255 : 0, 4 * at, 4 * at + 4);
    picture.getContext("2d").putImageData(pixels, 0, 0);
    return picture;
  }

  drawOutline(context, index) {
    const { width, height } = this.canvas, mask = Pictures.pixels(this.maskPicture(index), width, height).data;
    const rim = new ImageData(width, height), inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[4 * (x + y * width)] > 127;
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        if (inside(x, y) && !(inside(x - 2, y) && inside(x + 2, y) && inside(x, y - 2) && inside(x, y + 2)))
          rim.data.set([...data.outline, 255], 4 * (x + y * width));
    const layer = new OffscreenCanvas(width, height);
    layer.getContext("2d").putImageData(rim, 0, 0);
    context.drawImage(layer, 0, 0);
  }

  drawCross(context, [x, y]) {
    const { width, height } = this.canvas, gap = 0.03 * Math.max(width, height), [at, below] = [x * width, y * height];
    context.strokeStyle = "rgb(217 138 0 / 0.8)";
    context.lineWidth = Math.max(1, width / 600);
    context.beginPath();
    for (const [a, b, c, d] of [[0, below, at - gap, below], [at + gap, below, width, below],
      [at, 0, at, below - gap], [at, below + gap, at, height]]) { context.moveTo(a, b); context.lineTo(c, d); }
    context.stroke();
  }

  drawLetters(context) {
    const { width, height } = this.canvas, size = Math.max(14, width / 28), [left, right, top] = data.letters;
    if (!left) return;
    context.font = `${size}px sans-serif`;
    context.fillStyle = "rgb(225 225 225)";
    context.textBaseline = "middle";
    for (const [text, x, y, align] of [[left, 6, height / 2, "left"], [right, width - 6, height / 2, "right"],
      [top, width / 2, size, "center"]]) { context.textAlign = align; context.fillText(text, x, y); }
  }

  setMask(at) {
    const found = at && lesionsAt(this.heat, this.dims, at.value, at.low, this.smallest);
    this.changed = found && found.mask;
    this.show();
    return found && { count: found.count, amount: `${Math.round(found.voxels * data.frames.voxel)} pixels` };
  }

  setOutline(on) { this.outline = on; this.show(); }

  setOpacity(share) { this.share = share; this.show(); }
}

// --- what both have

const state = { voxel: SIZE.map((size) => (size - 1) / 2), lesion: -1, view: "all", stage: null };

function said(voxel) {
  const whole = voxel.map((value, axis) => clamp(Math.round(value), 0, SIZE[axis] - 1));
  const words = [`voxel ${whole.join(", ")}`];
  if (data.physical) words.push(`R A S ${multiply(data.affine, voxel).map((mm) => mm.toFixed(1)).join(", ")} mm`);
  words.push(`heatmap ${state.stage.heatAt(voxel).toFixed(2)}`);
  byId("place").textContent = words.join(" · ");
  if (SLICES < 2) return;
  byId("slice").value = whole[data.axis];
  byId("here").setAttribute("x", whole[data.axis]);
  byId("slice-said").textContent = `slice ${whole[data.axis]} of 0 to ${SLICES - 1}: score ${data.scores[whole[data.axis]].toFixed(2)}`;
}

function goTo(voxel) {
  state.voxel = voxel;
  state.stage.show(voxel);
  said(voxel);
}

function toSlice(index) {
  const voxel = [...state.voxel];
  voxel[data.axis] = clamp(index, 0, SLICES - 1);
  goTo(voxel);
}

const bySlice = (step) => SLICES > 1 && toSlice(Math.round(state.voxel[data.axis]) + step);

function toLesion(index) {
  if (!data.lesions.length) return;
  state.lesion = (index + data.lesions.length) % data.lesions.length;
  for (const row of document.querySelectorAll("[data-lesion]"))
    row.setAttribute("aria-current", +row.dataset.lesion === state.lesion);
  goTo([...data.lesions[state.lesion]]);
}

function setThresholds() {
  const [value, low] = [+byId("value").value, Math.min(+byId("low").value, +byId("value").value)];
  byId("low").value = low;
  const stored = value === rounded(data.threshold.value) && low === rounded(data.threshold.low);
  const found = state.stage.setMask(stored ? null : { value, low });
  byId("value-said").textContent = value.toFixed(2);
  byId("low-said").textContent = low.toFixed(2);
  byId("mask-said").textContent = found
    ? `Not as stored: ${found.count} lesion${found.count === 1 ? "" : "s"}, ${found.amount}, from what this page shows.`
    : "The mask as it is stored.";
  for (const [mark, at] of [["low-mark", low], ["value-mark", value]]) {
    byId(mark).style.display = "block";
    byId(mark).style.left = `${100 * at}%`;
  }
}

const rounded = (value) => Math.round(100 * value) / 100;

function setOpacity() {
  byId("opacity-said").textContent = (+byId("opacity").value).toFixed(2);
  state.stage.setOpacity(+byId("opacity").value);
}

function reset() {
  byId("value").value = rounded(data.threshold.value);
  byId("low").value = rounded(data.threshold.low);
  byId("opacity").value = data.strongest;
  byId("outline").checked = true;
  setThresholds();
  setOpacity();
  state.stage.setOutline(true);
}

function setView(name) {
  state.view = name;
  for (const button of document.querySelectorAll("[data-view]"))
    button.setAttribute("aria-pressed", button.dataset.view === name);
  state.stage.setView(name);
}

function toggle(id) {
  byId(id).checked = !byId(id).checked;
  byId(id).dispatchEvent(new Event("change"));
}

const KEYS = {
  j: () => bySlice(1), k: () => bySlice(-1), n: () => toLesion(state.lesion + 1), m: () => toggle("outline"), r: reset,
  p: () => toLesion(Math.max(state.lesion, 0) - 1),
  h: () => { byId("opacity").value = +byId("opacity").value ? 0 : data.strongest; setOpacity(); },
};
if (data.planes)
  ["all", ...Object.keys(Planes.VIEWS)].forEach((name, index) => { KEYS[index + 1] = () => setView(name); });

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const inViewer = event.target === byId("canvas");
  const step = inViewer && { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[event.key];
  if (!step && (!KEYS[event.key] || event.target.type === "text")) return;
  event.preventDefault();
  event.stopPropagation(); // NiiVue has keys of its own
  if (step) bySlice(step);
  else KEYS[event.key]();
}

function listen() {
  for (const row of document.querySelectorAll("[data-lesion]"))
    row.addEventListener("click", () => toLesion(+row.dataset.lesion));
  if (SLICES > 1) {
    byId("slice").addEventListener("input", () => toSlice(+byId("slice").value));
    byId("chart").addEventListener("click", (event) => {
      const box = byId("chart").getBoundingClientRect();
      toSlice(Math.floor(((event.clientX - box.left) / box.width) * SLICES));
    });
  }
  for (const id of ["value", "low"]) byId(id).addEventListener("input", setThresholds);
  byId("opacity").addEventListener("input", setOpacity);
  byId("outline").addEventListener("change", () => state.stage.setOutline(byId("outline").checked));
  byId("reset").addEventListener("click", reset);
  if (data.planes) window.addEventListener("resize", () => state.view === "all" && setView("all"));
  for (const button of document.querySelectorAll("[data-view]"))
    button.addEventListener("click", () => setView(button.dataset.view));
  document.addEventListener("keydown", press, { capture: true });
}

async function start() {
  const moved = (voxel) => {
    state.voxel = voxel;
    if (data.frames) state.stage.show(voxel);
    said(voxel);
  };
  byId("why").textContent = "The viewer is being made.";
  byId("live").hidden = false;
  try {
    state.stage = await (data.planes ? Planes : Pictures).make(byId("canvas"), (voxel) => state.stage && moved(voxel));
  } catch (error) {
    byId("live").hidden = true;
    document.body.classList.add("still");
    byId("why").textContent = `The images cannot be shown here: ${error.message}`;
    return false;
  }
  byId("instead").hidden = byId("preview").hidden = true;
  listen();
  const best = data.scores.indexOf(Math.max(...data.scores));
  if (SLICES > 1) state.voxel[data.axis] = best;
  reset();
  if (data.planes) setView("all");
  if (data.lesions.length) toLesion(0);
  else goTo(state.voxel);
  return true;
}

window.report = { state, data, ready: start() };
