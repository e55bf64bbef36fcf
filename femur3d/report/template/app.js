// The pages and what leads from one to another: #/cases, #/case/INDEX, #/cohort; keys, marks, colours.

const MARKS = new Marks();
const TABLE = new CaseTable();
const MAIN = document.getElementById("main");
let current = -1; // index of the case that is shown

// ---- a case

async function casePage(index) {
  const one = CASES[index];
  const place = TABLE.order.indexOf(index);
  MARKS.change(one, { seen: MARKS.of(one).seen || new Date().toISOString() });
  const views = element("div", { class: "views-grid" }, element("p", { class: "empty" }, "Loading …"));
  const link = (by, text, title) => {
    const next = TABLE.order[place + by];
    return next === undefined ? element("span", { class: "button off" }, text) : element("a", { class: "button", href: `#/case/${next}`, title }, text);
  };
  MAIN.replaceChildren(element("section", { class: "case-page", "aria-labelledby": "case-name" },
    element("div", { class: "case-head" },
      element("h1", { id: "case-name", tabindex: -1 }, one.name), badge(one.level),
      element("span", { class: "volumes" }, Object.entries(one.volumes).map(([side, ml]) =>
        element("span", {}, element("span", { class: `swatch ${side}` }), `${side} ${shown(ml, 1)} ml`))),
      element("span", { class: "spacer" }),
      markControls(one),
      element("span", { class: "group" }, link(-1, "‹ Previous", "k"), link(1, "Next ›", "j"))),
    views, details(one)));
  document.getElementById("case-name").focus({ preventScroll: true });
  try {
    const content = await caseContent(index);
    if (current !== index) return;
    await showViews(views, content);
  } catch (error) {
    views.replaceChildren(element("p", { class: "empty" }, error.message));
  }
}

async function showViews(views, { stack, surfaces }) {
  const slices = stack && new SlicesView(await Stack.load(stack));
  const surface = surfaces.length && new SurfaceView(await loadMesh(surfaces));
  const panels = slices ? slices.planes.map((plane) => plane.figure) : [];
  const shape = surface ? surface.figure : element("figure", { class: "panel" }, element("p", { class: "empty" }, "No surface: no femur was found."));
  if (!slices) views.replaceChildren(element("p", { class: "empty" }, "The label map of this case is not there any more."));
  else views.replaceChildren(slices.controls(), panels[0], shape, panels[1], panels[2]);
  if (stack && !stack.picture) views.prepend(element("p", { class: "hint" }, "Without the scan: it is not where it was. Give its folder with --images."));
  if (slices) slices.draw();
}

function markControls(one) {
  const note = element("input", { type: "text", id: "note", placeholder: "Note", "aria-label": "Note", value: MARKS.of(one).note, maxlength: 500,
    oninput: (event) => MARKS.change(one, { note: event.target.value }) });
  const button = (mark, text) => element("button", { type: "button", class: `mark-${mark}`, id: `mark-${mark}`, "aria-pressed": String(MARKS.of(one).mark === mark), onclick: () => setMark(one, mark) }, text);
  return element("span", { class: "group marks", role: "group", "aria-label": "Your mark" }, button("good", "✓ Good"), button("bad", "✗ Bad"), note);
}

function setMark(one, mark) {
  const now = MARKS.of(one).mark === mark ? "" : mark;
  MARKS.change(one, { mark: now });
  for (const name of Object.keys(MARK_NAMES)) document.getElementById(`mark-${name}`)?.setAttribute("aria-pressed", String(now === name));
  say(now ? `${one.name} is marked ${now}` : `${one.name} is not marked any more`);
}

function details(one) {
  const raised = one.flags.filter((flag) => flag.level === "red" || flag.level === "yellow");
  const others = one.flags.filter((flag) => !raised.includes(flag));
  const sentences = (flags) => element("ul", { class: "sentences" }, flags.map((flag) => element("li", { class: flag.level }, badge(flag.level), flag.sentence)));
  const facts = [["Model", one.model], ["Computed in", Number.isFinite(one.seconds) ? `${one.seconds.toFixed(1)} s` : ""], ["On", one.device], ...one.notes.map((note) => ["Note", note])];
  return element("div", { class: "details" },
    element("section", { class: "panel text" }, element("h2", {}, "Flags"),
      raised.length ? sentences(raised) : element("p", {}, one.flags.length ? "Nothing is out of the ordinary." : "No quality measures were taken."),
      others.length ? element("details", {}, element("summary", {}, `${others.length} more measures`), sentences(others)) : null),
    element("section", { class: "panel text" }, element("h2", {}, one.metrics.length ? "Against the reference" : "About"),
      one.metrics.length ? metricsTable(one.metrics) : null,
      element("dl", { class: "facts" }, facts.filter(([, text]) => text).map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))))),
    one.shape ? shapePanel(one.shape) : null);
}

// What was measured on the femurs: no number without its gate, and what the gate has against it below.
function shapePanel({ sides, rows, reasons }) {
  const words = (name) => name.replaceAll("_", " ").replace(/ (mm|deg|mm2|mm3)$/, "");
  return element("section", { class: "panel text shape" }, element("h2", {}, "Shape"),
    element("div", { class: "scroll" }, element("table", { class: "metrics" },
      element("thead", {}, element("tr", {}, ["", ...sides].map((side) => element("th", { scope: "col" }, SIDES[side] || side)))),
      element("tbody", {}, rows.map(([name, ...cells]) => element("tr", {}, element("th", { scope: "row" }, words(name)),
        cells.map((text) => element("td", {}, text))))))),
    element("ul", {}, reasons.map(([reason, names]) => element("li", {}, `${reason} (${names.map(words).join(", ")})`))),
    element("p", {}, "90% intervals in parentheses. For research only."));
}

const METRIC_COLUMNS = [
  ["mean_mm", "Mean", 2, "mm"], ["std_mm", "SD", 2, "mm"], ["hausdorff_mm", "Hausdorff", 1, "mm"], ["hd95_mm", "HD95", 1, "mm"],
  ["dice", "Dice", 3], ["jaccard", "Jaccard", 3], ["precision", "Precision", 3], ["recall", "Recall", 3], ["volume_error_ml", "Volume error", 1, "ml"],
];

function metricsTable(rows, first = (row) => [row.label]) {
  const names = first === caseAndLabel ? ["Case", "Femur"] : ["Femur"];
  return element("div", { class: "scroll" }, element("table", { class: "metrics" },
    element("thead", {}, element("tr", {}, names.map((name) => element("th", { scope: "col" }, name)),
      METRIC_COLUMNS.map(([, name, , unit]) => element("th", { scope: "col", class: "numeric" }, unit ? `${name}, ${unit}` : name)))),
    element("tbody", {}, rows.map((row) => element("tr", { class: row.kind || false },
      first(row).map((text) => element("th", { scope: "row" }, text)),
      METRIC_COLUMNS.map(([key, , decimals]) => element("td", { class: "numeric" }, shown(row[key], decimals))))))));
}

const caseAndLabel = (row) => [row.index === undefined ? row.case : element("a", { href: `#/case/${row.index}` }, row.case), row.label];

// ---- the cohort

function cohortPage() {
  const bySide = (value) => {
    const found = { left: [], right: [], femur: [] };
    CASES.forEach((one, index) => value(one).forEach(([side, v]) => Number.isFinite(v) && (found[side] || found.femur).push([v, index])));
    return found;
  };
  const volumes = bySide((one) => Object.entries(one.volumes).map(([side, ml]) => [side, number(ml)]));
  const metric = (name) => bySide((one) => one.metrics.map((row) => [row.side, number(row[name])]));
  const pairs = CASES.map((one, index) => [number(one.volumes.left), number(one.volumes.right), index]).filter(([l, r]) => Number.isFinite(l) && Number.isFinite(r));
  const errors = CASES.flatMap((one, index) => one.metrics.filter((row) => number(row.reference_ml) + number(row.prediction_ml) > 0)
    .map((row) => ({ index, side: row.side, mean: (row.reference_ml + row.prediction_ml) / 2, difference: row.prediction_ml - row.reference_ml })));
  const charts = [
    histogram("Volumes", "ml", volumes), leftAgainstRight("Left against right", "ml", pairs), flagsByKind(),
    evaluated && histogram("Mean surface distance", "mm", metric("mean_mm")), evaluated && histogram("HD95", "mm", metric("hd95_mm")),
    evaluated && histogram("Dice", "Dice", metric("dice")), evaluated && blandAltman(errors, REPORT.agreement),
  ];
  MAIN.replaceChildren(element("section", { class: "cohort", "aria-labelledby": "cohort-name" },
    element("h1", { id: "cohort-name", tabindex: -1 }, "Cohort"), tiles(), element("div", { class: "charts" }, charts.filter(Boolean)), evaluated && tableOne()));
}

function tiles() {
  const count = (level) => CASES.filter((one) => one.level === level).length;
  const facts = [["cases", CASES.length], ["red flags", count("red")], ["yellow flags", count("yellow")], ["looked at", CASES.filter((one) => MARKS.of(one).seen).length]];
  if (evaluated) facts.push(["mean Dice", shown(REPORT.table[0].dice, 3)], ["mean distance", shown(REPORT.table[0].mean_mm, 2, "mm")], ["failures", REPORT.failures]);
  return element("dl", { class: "tiles" }, facts.map(([name, value]) => element("div", { class: "panel tile" }, element("dd", {}, String(value)), element("dt", {}, name))));
}

function tableOne() {
  const rows = CASES.flatMap((one, index) => one.metrics.map((row) => ({ ...row, case: one.name, index })));
  const lines = REPORT.table.map((row) => ({ ...row, kind: "sum" }));
  const all = rows.length > 60
    ? [metricsTable(lines, caseAndLabel), element("details", {}, element("summary", {}, `All ${rows.length} femurs`), metricsTable(rows, caseAndLabel))]
    : [metricsTable([...rows, ...lines], caseAndLabel)];
  return element("section", { class: "panel text table-one" }, element("h2", {}, "Table 1 of the paper, for these cases"), ...all,
    element("p", { class: "hint" }, `Failures: ${REPORT.failures} of ${REPORT.femurs} femurs. A failure counts with Dice 0 and an infinite distance. Distances are means over the surfaces' area.`));
}

// ---- leading from page to page

function route() {
  const [, page = "cases", index] = location.hash.split("/");
  current = page === "case" && CASES[Number(index)] ? Number(index) : -1;
  for (const link of document.querySelectorAll("[data-page]"))
    link.toggleAttribute("aria-current", link.dataset.page === (page === "cohort" ? "cohort" : "cases"));
  window.scrollTo(0, 0);
  if (current >= 0) casePage(current);
  else if (page === "cohort") cohortPage();
  else MAIN.replaceChildren(TABLE.page());
  document.title = current >= 0 ? `${CASES[current].name} – femur3d report` : "femur3d report";
}

function step(by) {
  if (current < 0) return TABLE.step(by);
  const next = TABLE.order[TABLE.order.indexOf(current) + by];
  if (next !== undefined) location.hash = `#/case/${next}`;
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  ArrowRight: () => current >= 0 && step(1),
  ArrowLeft: () => current >= 0 && step(-1),
  Escape: () => current >= 0 && (location.hash = "#/cases"),
  c: () => (location.hash = "#/cohort"),
  g: () => current >= 0 && setMark(CASES[current], "good"),
  b: () => current >= 0 && setMark(CASES[current], "bad"),
  n: () => document.getElementById("note")?.focus(),
  "/": () => document.getElementById("filter")?.focus(),
  "?": () => document.getElementById("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (typing && event.key === "Escape") return event.target.blur();
  const slides = event.target.matches("input[type=range]") && event.key.startsWith("Arrow");
  if (typing || slides || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("femur3d-theme", theme);
  } catch {
    // the choice lasts as long as the page
  }
}

function firstTheme() {
  try {
    const kept = localStorage.getItem("femur3d-theme");
    if (kept === "light" || kept === "dark") return kept;
  } catch {
    // as below
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

document.documentElement.dataset.theme = firstTheme();
document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.getElementById("help").addEventListener("click", () => document.getElementById("keys").showModal());
document.getElementById("save-marks").addEventListener("click", () => MARKS.save());
document.getElementById("load-marks").addEventListener("change", async (event) => {
  await MARKS.load(event.target.files[0]);
  event.target.value = "";
  route();
});
document.getElementById("origin").textContent = `femur3d ${REPORT.version}, ${REPORT.created}`;
window.addEventListener("hashchange", route);
route();
