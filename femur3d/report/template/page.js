// What the other parts share: the report's data, and how elements and numbers are made.
// Names and notes come from files of other people: they reach the page as text only, never as HTML.

const REPORT = JSON.parse(document.getElementById("report-data").textContent);
const CASES = REPORT.cases;
const SIDES = { left: "Left", right: "Right", femur: "Femur" };
const LEVELS = ["green", "unknown", "yellow", "red"];
const SVG = "http://www.w3.org/2000/svg";

// An element: attributes by name, `on…` for listeners; children are elements or text.
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// JSON knows no infinite number: it comes as "inf"; what does not apply comes as null.
function number(value) {
  if (value === "inf") return Infinity;
  return typeof value === "number" ? value : NaN;
}

function shown(value, decimals, unit = "") {
  const x = number(value);
  if (Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return "∞";
  return x.toFixed(decimals).replace("-", "−") + (unit ? ` ${unit}` : "");
}

function say(text) {
  document.getElementById("status").textContent = text;
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function unpacked(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// What a case page needs: in this file, or, in a report that is a folder, in a script beside it.
const waiting = new Map();
window.femur3dCase = (index, content) => waiting.get(index)?.(content);

function caseContent(index) {
  const block = document.getElementById(`case-${index}`);
  if (block) return Promise.resolve(JSON.parse(block.textContent));
  if (!REPORT.folder) return Promise.resolve({ stack: null, surfaces: [] });
  return new Promise((resolve, reject) => {
    waiting.set(index, resolve);
    const failed = () => reject(new Error(`${REPORT.folder}/${index}.js is missing: keep the report's folder whole.`));
    document.head.append(element("script", { src: `${REPORT.folder}/${index}.js`, onerror: failed }));
  });
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
