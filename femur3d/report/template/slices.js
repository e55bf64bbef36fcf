// Three planes through a case, cut from one stack of voxels; contours by marching squares, in the voxels' plane.

const PLANES = {
  // axes of (z, y, x): fixed, down, across; whether "down" is turned round; letters left, right, above, below
  coronal: { fixed: 1, down: 0, across: 2, flip: true, letters: "RLSI" },
  axial: { fixed: 0, down: 1, across: 2, flip: false, letters: "RLAP" },
  sagittal: { fixed: 2, down: 0, across: 1, flip: true, letters: "APSI" },
};
const REFERENCE_SHIFT = 2; // a voxel's byte: the prediction's label, and above these bits the reference's

class Stack {
  static async load(packed) {
    const stack = new Stack();
    Object.assign(stack, { shape: packed.shape, spacing: packed.spacing, hasReference: packed.reference });
    stack.labels = await unpacked(packed.labels);
    stack.grey = packed.picture ? await Stack.voxels(packed) : null;
    stack.centre = stack.fullest();
    return stack;
  }

  // The picture of all slices side by side, back to voxels (z, y, x).
  static async voxels({ shape, axis, across, picture }) {
    const image = new Image();
    image.src = `data:image/webp;base64,${picture}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    const [rowAxis, columnAxis] = [0, 1, 2].filter((a) => a !== axis);
    const steps = [shape[1] * shape[2], shape[2], 1];
    const [rows, columns] = [shape[rowAxis], shape[columnAxis]];
    const grey = new Uint8Array(shape[0] * shape[1] * shape[2]);
    for (let n = 0; n < shape[axis]; n++) {
      const [top, left] = [Math.floor(n / across) * rows, (n % across) * columns];
      for (let r = 0; r < rows; r++) {
        let from = 4 * ((top + r) * image.width + left);
        let to = n * steps[axis] + r * steps[rowAxis];
        for (let c = 0; c < columns; c++, from += 4, to += steps[columnAxis]) grey[to] = pixels[from];
      }
    }
    return grey;
  }

  // For each axis the index where the most of the femurs is to be seen.
  fullest() {
    const [nz, ny, nx] = this.shape;
    const counts = [new Uint32Array(nz), new Uint32Array(ny), new Uint32Array(nx)];
    for (let z = 0, i = 0; z < nz; z++)
      for (let y = 0; y < ny; y++)
        for (let x = 0; x < nx; x++, i++)
          if (this.labels[i]) {
            counts[0][z]++;
            counts[1][y]++;
            counts[2][x]++;
          }
    return counts.map((c) => (Math.max(...c) ? c.indexOf(Math.max(...c)) : c.length >> 1));
  }

  // A slice: bytes of `voxels`, row by row as it is shown.
  cut(voxels, plane, index) {
    const { fixed, down, across, flip } = PLANES[plane];
    const steps = [this.shape[1] * this.shape[2], this.shape[2], 1];
    const [rows, columns] = [this.shape[down], this.shape[across]];
    const slice = new Uint8Array(rows * columns);
    for (let r = 0, to = 0; r < rows; r++) {
      let from = index * steps[fixed] + (flip ? rows - 1 - r : r) * steps[down];
      for (let c = 0; c < columns; c++, from += steps[across]) slice[to++] = voxels[from];
    }
    return slice;
  }
}

// The outline of a mask as a path in voxels; its voxel (row 0, column 0) covers 0 to 1.
function outline(mask, rows, columns) {
  const path = new Path2D();
  const at = (r, c) => (r >= 0 && c >= 0 && r < rows && c < columns && mask[r * columns + c] ? 1 : 0);
  for (let r = -1; r < rows; r++)
    for (let c = -1; c < columns; c++) {
      const kind = at(r, c) | (at(r, c + 1) << 1) | (at(r + 1, c + 1) << 2) | (at(r + 1, c) << 3);
      if (kind === 0 || kind === 15) continue;
      const [x, y] = [c + 0.5, r + 0.5]; // of the upper left of four voxel centres
      const points = { t: [x + 0.5, y], r: [x + 1, y + 0.5], b: [x + 0.5, y + 1], l: [x, y + 0.5] };
      for (const [from, to] of CROSSINGS[kind]) {
        path.moveTo(...points[from]);
        path.lineTo(...points[to]);
      }
    }
  return path;
}

const CROSSINGS = [
  "", "lt", "tr", "lr", "rb", "lt rb", "tb", "lb", "bl", "tb", "tr lb", "rb", "lr", "tr", "lt", "",
].map((pairs) => pairs.split(" ").filter(Boolean));

// One plane: a canvas, a slider, and the place of the other two planes as thin lines.
class PlaneView {
  constructor(plane, stack, view) {
    Object.assign(this, { plane, stack, view, ...PLANES[plane] });
    this.canvas = element("canvas", { class: "slice", tabindex: 0, role: "img", "aria-label": `${plane} slice with contours` });
    this.slider = element("input", { type: "range", min: 0, max: stack.shape[this.fixed] - 1, "aria-label": `${plane} slice` });
    this.count = element("output");
    this.figure = element("figure", { class: `panel plane ${plane}` },
      element("figcaption", {}, element("span", {}, plane), this.count), this.canvas, this.slider);
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.point(event);
    });
    this.canvas.addEventListener("pointermove", (event) => event.buttons && this.point(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  get index() {
    return this.view.place[this.fixed];
  }

  go(index) {
    this.view.place[this.fixed] = Math.min(Math.max(index, 0), this.stack.shape[this.fixed] - 1);
    this.view.draw();
  }

  wheel(event) {
    event.preventDefault();
    this.turned = (this.turned || 0) + event.deltaY;
    if (Math.abs(this.turned) < 20) return;
    this.go(this.index + (this.turned > 0 ? 1 : -1));
    this.turned = 0;
  }

  key(event) {
    const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    this.go(this.index + step);
  }

  // A touch or click chooses where the other two planes lie.
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const [u, v] = [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
    const column = Math.floor((u - this.left) / this.scaleX);
    const row = Math.floor((v - this.top) / this.scaleY);
    const clip = (i, n) => Math.min(Math.max(i, 0), n - 1);
    const rows = this.stack.shape[this.down];
    this.view.place[this.across] = clip(column, this.stack.shape[this.across]);
    this.view.place[this.down] = clip(this.flip ? rows - 1 - row : row, rows);
    this.view.draw();
  }

  draw() {
    const { canvas, stack } = this;
    this.ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * this.ratio), Math.round(canvas.clientHeight * this.ratio)];
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const [rows, columns] = [stack.shape[this.down], stack.shape[this.across]];
    const [rowMm, columnMm] = [stack.spacing[this.down], stack.spacing[this.across]];
    const scale = Math.min(width / (columns * columnMm), height / (rows * rowMm));
    [this.scaleX, this.scaleY] = [scale * columnMm, scale * rowMm];
    [this.left, this.top] = [(width - columns * this.scaleX) / 2, (height - rows * this.scaleY) / 2];
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.setTransform(this.scaleX, 0, 0, this.scaleY, this.left, this.top);
    if (stack.grey) context.drawImage(this.picture(rows, columns), 0, 0);
    this.contours(context, rows, columns);
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.lines(context, rows);
    this.sides(context, width, height);
    this.bar(context, width, height, scale);
    this.slider.value = this.index;
    this.count.textContent = `${this.index + 1} / ${stack.shape[this.fixed]}`;
  }

  picture(rows, columns) {
    const small = new OffscreenCanvas(columns, rows);
    const image = new ImageData(columns, rows);
    const words = new Uint32Array(image.data.buffer);
    const slice = this.stack.cut(this.stack.grey, this.plane, this.index);
    const lut = this.view.greys();
    for (let i = 0; i < slice.length; i++) words[i] = lut[slice[i]];
    small.getContext("2d").putImageData(image, 0, 0);
    return small;
  }

  contours(context, rows, columns) {
    const slice = this.stack.cut(this.stack.labels, this.plane, this.index);
    const line = (1.6 * this.ratio) / Math.sqrt(this.scaleX * this.scaleY);
    const parts = [];
    if (this.view.shows.prediction) {
      parts.push([(v) => (v & 3) === 1, "#56b4e9"], [(v) => (v & 3) === 2, "#e69f00"]);
    }
    if (this.view.shows.reference) parts.push([(v) => v >> REFERENCE_SHIFT, "#00d000"]);
    for (const [belongs, stroke] of parts) {
      const path = outline(slice.map((v) => (belongs(v) ? 1 : 0)), rows, columns);
      context.save();
      context.lineCap = "round";
      context.setTransform(1, 0, 0, 1, 0, 0); // lines are as wide across as down, whatever the voxels
      const placed = new Path2D();
      placed.addPath(path, new DOMMatrix([this.scaleX, 0, 0, this.scaleY, this.left, this.top]));
      context.lineWidth = line * Math.sqrt(this.scaleX * this.scaleY);
      context.strokeStyle = stroke;
      context.stroke(placed);
      context.restore();
    }
  }

  lines(context, rows) {
    const place = this.view.place;
    const row = this.flip ? rows - 1 - place[this.down] : place[this.down];
    const [x, y] = [this.left + (place[this.across] + 0.5) * this.scaleX, this.top + (row + 0.5) * this.scaleY];
    context.strokeStyle = "rgba(255,255,255,.28)";
    context.lineWidth = this.ratio;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, context.canvas.height);
    context.moveTo(0, y);
    context.lineTo(context.canvas.width, y);
    context.stroke();
  }

  sides(context, width, height) {
    const [left, right, above, below] = this.letters;
    const size = 12 * this.ratio;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.fillStyle = "#ffe14d";
    context.strokeStyle = "rgba(0,0,0,.8)";
    context.lineWidth = 3 * this.ratio;
    for (const [letter, x, y] of [
      [left, size, height / 2], [right, width - size, height / 2], [above, width / 2, size], [below, width / 2, height - size],
    ]) {
      context.strokeText(letter, x, y);
      context.fillText(letter, x, y);
    }
  }

  bar(context, width, height, scale) {
    const [long, edge] = [20 * scale, 12 * this.ratio];
    context.fillStyle = "rgba(255,255,255,.9)";
    context.fillRect(width - edge - long, height - edge, long, 2 * this.ratio);
    context.font = `${10 * this.ratio}px system-ui, sans-serif`;
    context.textAlign = "right";
    context.fillText("20 mm", width - edge, height - edge - 8 * this.ratio);
  }
}

// All three planes of a case, with what is shown in them.
class SlicesView {
  constructor(stack) {
    this.stack = stack;
    this.place = [...stack.centre];
    this.shows = { prediction: true, reference: stack.hasReference };
    this.contrast = 0;
    this.planes = Object.keys(PLANES).map((plane) => new PlaneView(plane, stack, this));
  }

  // Colours of the grey values, brighter or darker by `contrast`, -1 to 1.
  greys() {
    const power = 2 ** -this.contrast;
    return Uint32Array.from({ length: 256 }, (_, grey) => {
      const v = Math.round(255 * (grey / 255) ** power);
      return (0xff000000 | (v << 16) | (v << 8) | v) >>> 0;
    });
  }

  draw() {
    cancelAnimationFrame(this.next);
    this.next = requestAnimationFrame(() => this.planes.forEach((plane) => plane.draw()));
  }

  controls() {
    const toggle = (name, key, swatch) =>
      element("label", { class: "toggle" },
        element("input", { type: "checkbox", checked: this.shows[key], onchange: (event) => {
          this.shows[key] = event.target.checked;
          this.draw();
        } }),
        ...swatch.map((kind) => element("span", { class: `swatch ${kind}` })), name);
    const bright = element("input", { type: "range", min: -1, max: 1, step: 0.05, value: 0, oninput: (event) => {
      this.contrast = Number(event.target.value);
      this.draw();
    } });
    return element("div", { class: "controls" },
      toggle("segmentation", "prediction", ["left", "right"]),
      this.stack.hasReference && toggle("reference", "reference", ["reference"]),
      this.stack.grey && element("label", { class: "toggle" }, "brightness", bright));
  }
}
