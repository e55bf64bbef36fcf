// The femurs' surfaces, to turn with the mouse: WebGL, seen without perspective so that millimetres can be measured.
// World coordinates are LPS: +x the patient's left, +y posterior, +z superior.

const UNIT_MM = 0.01; // of the stored positions and distances
const COLOURS = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]]; // blue, white, red
const PLAIN = { left: [86, 180, 233], right: [230, 159, 0], femur: [241, 214, 145], missed: [120, 120, 120] };
const LIMITS_MM = [1, 2, 3, 5, 10]; // of the colours, to choose from
const SEEN_FROM = {
  front: [[1, 0, 0], [0, 0, 1], [0, -1, 0]], // rows: to the right, up, towards the eye
  back: [[-1, 0, 0], [0, 0, 1], [0, 1, 0]],
  left: [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
  right: [[0, -1, 0], [0, 0, 1], [-1, 0, 0]],
  above: [[1, 0, 0], [0, -1, 0], [0, 0, 1]],
};
const VERTEX_SHADER = `
  attribute vec3 position, normal, tint;
  attribute float distance;
  uniform mat3 turn;
  uniform vec3 scale;
  varying vec3 n, plain;
  varying float d;
  void main() {
    n = turn * normal;
    plain = tint;
    d = distance;
    gl_Position = vec4(turn * position * scale, 1.0);
  }`;
const FRAGMENT_SHADER = `
  precision highp float;
  uniform float limit;
  uniform vec3 colours[5];
  varying vec3 n, plain;
  varying float d;
  vec3 coloured(float t) {
    float s = clamp(t, -1.0, 1.0) * 2.0 + 2.0;
    vec3 c = mix(colours[0], colours[1], clamp(s, 0.0, 1.0));
    c = mix(c, colours[2], clamp(s - 1.0, 0.0, 1.0));
    c = mix(c, colours[3], clamp(s - 2.0, 0.0, 1.0));
    return mix(c, colours[4], clamp(s - 3.0, 0.0, 1.0));
  }
  void main() {
    vec3 m = normalize(n);
    vec3 base = limit > 0.0 && d < 900.0 ? coloured(d / limit) : plain;
    float lamp = max(dot(m, normalize(vec3(-0.45, 0.6, 0.75))), 0.0);
    float fill = max(dot(m, normalize(vec3(0.7, -0.2, 0.5))), 0.0);
    float gloss = pow(max(dot(m, normalize(vec3(-0.25, 0.35, 1.0))), 0.0), 40.0);
    vec3 lit = base * (0.36 + 0.58 * lamp + 0.2 * fill) + 0.1 * gloss;
    gl_FragColor = vec4(lit * (0.72 + 0.28 * clamp(m.z, 0.0, 1.0)), 1.0);
  }`;
const NO_DISTANCE = 999;

// Positions, corners and distances of all femurs of a case, in millimetres about their middle.
async function loadMesh(surfaces) {
  const parts = await Promise.all(surfaces.map(async (surface) => {
    const bytes = (await unpacked(surface.data)).buffer;
    const { vertices, triangles, distances, side } = surface;
    const stored = distances ? new Int16Array(bytes, 6 * vertices, vertices) : null;
    return {
      side,
      positions: Float32Array.from(new Int16Array(bytes, 0, 3 * vertices), (v) => v * UNIT_MM),
      distances: Float32Array.from({ length: vertices }, (_, i) => (stored ? stored[i] * UNIT_MM : NO_DISTANCE)),
      corners: new Uint16Array(bytes, (distances ? 8 : 6) * vertices, 3 * triangles),
    };
  }));
  const count = parts.reduce((sum, part) => sum + part.distances.length, 0);
  const mesh = {
    positions: new Float32Array(3 * count), distances: new Float32Array(count), tints: new Float32Array(3 * count),
    corners: [], coloured: surfaces.some((surface) => surface.distances),
  };
  let first = 0;
  for (const { side, positions, distances, corners } of parts) {
    mesh.positions.set(positions, 3 * first);
    mesh.distances.set(distances, first);
    for (let i = 0; i < distances.length; i++) mesh.tints.set(PLAIN[side].map((v) => v / 255), 3 * (first + i));
    for (const corner of corners) mesh.corners.push(first + corner);
    first += distances.length;
  }
  mesh.normals = normalsOf(mesh.positions, mesh.corners);
  mesh.radius = 1;
  for (let i = 0; i < count; i++) mesh.radius = Math.max(mesh.radius, Math.hypot(...mesh.positions.subarray(3 * i, 3 * i + 3)));
  return mesh;
}

// At each vertex the mean of its triangles' normals, weighted by area.
function normalsOf(positions, corners) {
  const normals = new Float32Array(positions.length);
  for (let t = 0; t < corners.length; t += 3) {
    const [a, b, c] = [3 * corners[t], 3 * corners[t + 1], 3 * corners[t + 2]];
    const [u, v] = [b, c].map((p) => [0, 1, 2].map((k) => positions[p + k] - positions[a + k]));
    const normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const p of [a, b, c]) for (let k = 0; k < 3; k++) normals[p + k] += normal[k];
  }
  return normals;
}

class SurfaceView {
  constructor(mesh) {
    this.mesh = mesh;
    this.canvas = element("canvas", {
      class: "surface", tabindex: 0, role: "img",
      "aria-label": mesh.coloured
        ? "The surface, coloured by its signed distance to the reference. Arrows turn it."
        : "The surface of the femurs. Arrows turn it.",
    });
    this.tip = element("span", { class: "tip", hidden: true });
    this.letters = ["west", "east", "north", "south"].map((edge) => element("span", { class: `letter ${edge}`, "aria-hidden": "true" }));
    this.pointers = new Map();
    this.limit = mesh.coloured ? this.usualLimit() : 0;
    this.figure = element("figure", { class: "panel surface-panel" },
      element("figcaption", {}, element("span", {}, "surface"), this.buttons()),
      element("div", { class: "stage" }, this.canvas, ...this.letters, this.scaleBar(), this.tip,
        mesh.coloured && element("span", { class: "hint meaning" }, "red: beyond the reference, blue: short of it"), mesh.coloured && this.colourBar()));
    this.reset();
    this.listen();
    if (!this.start()) this.canvas.replaceWith(element("p", { class: "empty" }, "This browser shows no WebGL: the surface cannot be drawn."));
    else new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  // The least of the limits that 98% of the vertices keep.
  usualLimit() {
    const sizes = Array.from(this.mesh.distances, Math.abs).filter((d) => d < 900).sort((a, b) => a - b);
    const large = sizes[Math.floor(0.98 * (sizes.length - 1))] || 0;
    return LIMITS_MM.find((limit) => limit >= large) || LIMITS_MM[LIMITS_MM.length - 1];
  }

  buttons() {
    return element("span", { class: "views", role: "group", "aria-label": "seen from" },
      Object.keys(SEEN_FROM).map((name) =>
        element("button", { type: "button", onclick: () => this.reset(SEEN_FROM[name]) }, name)));
  }

  scaleBar() {
    this.measure = element("span", { class: "measure" });
    return element("span", { class: "scale" }, "20 mm", this.measure);
  }

  colourBar() {
    const stops = COLOURS.map((c) => `rgb(${c})`).join(",");
    const strip = element("span", { class: "strip" });
    strip.style.background = `linear-gradient(to top, ${stops})`;
    this.ends = ["top", "middle", "bottom"].map(() => element("span"));
    const choice = element("select", { "aria-label": "Range of the colours in millimetres", onchange: (event) => {
      this.limit = Number(event.target.value);
      this.draw();
    } }, LIMITS_MM.map((mm) => element("option", { value: mm, selected: mm === this.limit }, `± ${mm} mm`)));
    return element("div", { class: "colour-bar" }, element("span", { class: "ticks" }, ...this.ends), strip, choice);
  }

  start() {
    const gl = (this.gl = this.canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true, alpha: true }));
    if (!gl) return false;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return false;
    gl.useProgram(program);
    const { positions, normals, tints, distances, corners } = this.mesh;
    for (const [name, values, size] of [["position", positions, 3], ["normal", normals, 3], ["tint", tints, 3], ["distance", distances, 1]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, gl.FLOAT, false, 0, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint16Array(corners), gl.STATIC_DRAW);
    gl.uniform3fv(gl.getUniformLocation(program, "colours"), COLOURS.flat().map((v) => v / 255));
    this.uniforms = Object.fromEntries(["turn", "scale", "limit"].map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.enable(gl.DEPTH_TEST);
    return true;
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.nearer(Math.exp(-event.deltaY / 500));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  moved(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.tell(event);
    const now = [event.clientX, event.clientY];
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const gap = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      this.nearer(gap(now) / gap(before));
    } else {
      this.rotate((now[0] - before[0]) / 120, (now[1] - before[1]) / 120);
    }
    this.pointers.set(event.pointerId, now);
    this.tip.hidden = true;
  }

  key(event) {
    const turn = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    const zoom = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[event.key];
    if (!turn && !zoom) return;
    event.preventDefault();
    event.stopPropagation();
    if (turn) this.rotate(...turn);
    else this.nearer(zoom);
  }

  // Turns about the screen's axes, in radians to the right and down.
  rotate(right, down) {
    const [cr, sr, cd, sd] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
    const [x, y, z] = this.turn;
    const mix = (a, p, b, q) => a.map((v, i) => v * p + b[i] * q);
    const [x1, z1] = [mix(x, cr, z, sr), mix(z, cr, x, -sr)];
    this.turn = [x1, mix(y, cd, z1, -sd), mix(z1, cd, y, sd)];
    this.draw();
  }

  nearer(factor) {
    this.zoom = Math.min(Math.max(this.zoom * factor, 0.5), 12);
    this.draw();
  }

  reset(turn = SEEN_FROM.front) {
    this.turn = turn;
    this.zoom = 1;
    this.draw();
  }

  draw() {
    cancelAnimationFrame(this.next);
    this.next = requestAnimationFrame(() => this.paint());
  }

  // Pixels of the page per millimetre: the whole case is in sight at zoom 1, however it is turned to begin with.
  pixelsPerMm() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.size) {
      this.size = [0, 0];
      const p = this.mesh.positions;
      for (let i = 0; i < p.length; i += 3) this.size = [Math.max(this.size[0], Math.abs(p[i])), Math.max(this.size[1], Math.abs(p[i + 2]))];
    }
    return this.zoom * Math.min((width - 60) / (2 * this.size[0]), (height - 60) / (2 * this.size[1]));
  }

  paint() {
    const { gl, canvas } = this;
    if (!gl || !canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const scale = this.pixelsPerMm();
    gl.uniformMatrix3fv(this.uniforms.turn, false, [0, 1, 2].flatMap((column) => this.turn.map((row) => row[column])));
    gl.uniform3f(this.uniforms.scale, (2 * scale) / canvas.clientWidth, (2 * scale) / canvas.clientHeight, -1 / (2 * this.mesh.radius));
    gl.uniform1f(this.uniforms.limit, this.limit);
    gl.drawElements(gl.TRIANGLES, this.mesh.corners.length, gl.UNSIGNED_SHORT, 0);
    this.measure.style.width = `${20 * scale}px`;
    const [right, up] = [nearestLetter(this.turn[0]), nearestLetter(this.turn[1])];
    const names = [OPPOSITE[right], right, up, OPPOSITE[up]];
    this.letters.forEach((node, i) => (node.textContent = names[i]));
    if (this.ends) [`+${this.limit} mm`, "0", `−${this.limit} mm`].forEach((text, i) => (this.ends[i].textContent = text));
  }

  // The distance at the vertex under the mouse that is nearest to the eye.
  tell(event) {
    if (!this.mesh.coloured) return;
    const box = this.canvas.getBoundingClientRect();
    const scale = this.pixelsPerMm();
    const [u, v] = [(event.clientX - box.left - box.width / 2) / scale, (box.height / 2 - event.clientY + box.top) / scale];
    const p = this.mesh.positions;
    let [best, depth] = [-1, -Infinity];
    for (let i = 0; i < p.length; i += 3) {
      const [x, y, z] = this.turn.map((row) => row[0] * p[i] + row[1] * p[i + 1] + row[2] * p[i + 2]);
      if (z > depth && Math.hypot(x - u, y - v) < 7 / scale + 1) [best, depth] = [i / 3, z];
    }
    const distance = this.mesh.distances[best];
    this.tip.hidden = best < 0 || distance > 900;
    if (this.tip.hidden) return;
    this.tip.textContent = `${distance > 0 ? "+" : distance < 0 ? "−" : ""}${Math.abs(distance).toFixed(1)} mm`;
    this.tip.style.left = `${event.clientX - box.left}px`;
    this.tip.style.top = `${event.clientY - box.top}px`;
  }
}

const OPPOSITE = { R: "L", L: "R", A: "P", P: "A", S: "I", I: "S" };

function nearestLetter(direction) {
  const axis = direction.map(Math.abs).indexOf(Math.max(...direction.map(Math.abs)));
  return (direction[axis] > 0 ? "LPS" : "RAI")[axis];
}
