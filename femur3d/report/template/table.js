// The table of all cases: sorted, filtered, the most suspicious first.

const ROWS_AT_ONCE = 150; // further rows are made when the end of the table comes into sight

const worst = (one, metric, choose) => {
  const found = one.metrics.map((row) => number(row[metric])).filter((v) => !Number.isNaN(v));
  return found.length ? choose(...found) : NaN;
};
const hasSide = (side) => CASES.some((one) => side in one.volumes);
const evaluated = CASES.some((one) => one.metrics.length);

// Columns: title, what is sorted by, what is shown, and which way a first click sorts.
const COLUMNS = [
  { key: "case", title: "Case", value: (one) => one.name, cell: (one) => element("span", { class: "name" }, one.name) },
  ...["left", "right", "femur"].filter(hasSide).map((side) => ({
    key: side, title: `${SIDES[side]}, ml`, numeric: true, value: (one) => number(one.volumes[side]),
    cell: (one) => shown(one.volumes[side], 1),
  })),
  { key: "flags", title: "Flags", value: (one) => one.suspicion, down: true, cell: flagsCell },
  ...(evaluated ? [
    { key: "dice", title: "Dice", hint: "of the worse side", numeric: true, value: (one) => worst(one, "dice", Math.min), cell: (one) => shown(worst(one, "dice", Math.min), 3) },
    { key: "mean", title: "Mean, mm", hint: "mean surface distance of the worse side", numeric: true, down: true, value: (one) => worst(one, "mean_mm", Math.max), cell: (one) => shown(worst(one, "mean_mm", Math.max), 2) },
    { key: "hd95", title: "HD95, mm", hint: "of the worse side", numeric: true, down: true, value: (one) => worst(one, "hd95_mm", Math.max), cell: (one) => shown(worst(one, "hd95_mm", Math.max), 1) },
    { key: "hausdorff", title: "Hausdorff, mm", hint: "of the worse side", numeric: true, down: true, value: (one) => worst(one, "hausdorff_mm", Math.max), cell: (one) => shown(worst(one, "hausdorff_mm", Math.max), 1) },
  ] : []),
  { key: "mark", title: "Looked at", value: (one) => markText(one), cell: (one) => markCell(one) },
];

function flagsCell(one) {
  const raised = one.flags.filter((flag) => flag.level === "red" || flag.level === "yellow");
  const [first, ...others] = raised;
  return element("span", { class: "flags" }, badge(one.level),
    first && element("span", { class: "sentence" }, first.sentence + (others.length ? ` And ${others.length} more.` : "")));
}

function badge(level) {
  return element("span", { class: `badge ${level}` }, { green: "usual", unknown: "no limits", yellow: "yellow", red: "red" }[level]);
}

function markText(one) {
  const { mark, note, seen } = MARKS.of(one);
  return [mark || (seen ? "looked at" : ""), note].filter(Boolean).join(": ");
}

function markCell(one) {
  const { mark, seen } = MARKS.of(one);
  return element("span", { class: "mark-cell" }, mark ? element("span", { class: `badge mark-${mark}` }, mark) : seen ? "✓" : "",
    MARKS.of(one).note && element("span", { class: "sentence" }, MARKS.of(one).note));
}

function thumbnailOf(one) {
  if (!one.thumbnail) return element("span", { class: "thumb empty" });
  return element("img", { class: "thumb", alt: "", loading: "lazy", width: 176, height: 112, src: one.thumbnail });
}

class CaseTable {
  constructor() {
    this.sort = { key: "flags", down: true };
    this.filter = { text: "", level: "", mark: "" };
    this.order = CASES.map((_, index) => index);
    this.arrange();
  }

  arrange() {
    const column = COLUMNS.find((c) => c.key === this.sort.key);
    const sign = this.sort.down ? -1 : 1;
    const compare = (a, b) => {
      const [u, v] = [column.value(CASES[a]), column.value(CASES[b])];
      if (typeof u === "string") return sign * u.localeCompare(v, undefined, { numeric: true }) || a - b;
      if (Number.isNaN(u) || Number.isNaN(v)) return Number.isNaN(u) - Number.isNaN(v) || a - b; // empty ones last
      return u === v ? a - b : sign * (u - v);
    };
    this.order = CASES.map((_, index) => index).filter((index) => this.keeps(CASES[index])).sort(compare);
  }

  keeps(one) {
    const { text, level, mark } = this.filter;
    const { mark: given, note, seen } = MARKS.of(one);
    const said = [one.name, note, ...one.flags.filter((f) => f.level !== "green").map((f) => f.sentence)].join("\n").toLowerCase();
    if (text && !said.includes(text.toLowerCase())) return false;
    if (level && one.level !== level) return false;
    return !mark || { unseen: !seen, good: given === "good", bad: given === "bad", note: Boolean(note) }[mark];
  }

  page() {
    this.body = element("tbody");
    this.head = element("tr", {}, element("th", { scope: "col" }, element("span", { class: "hidden-text" }, "picture")), COLUMNS.map((column) => this.heading(column)));
    this.counted = element("p", { class: "counted" });
    this.end = element("div", { class: "end" });
    this.observer?.disconnect();
    this.observer = new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && this.more(), { rootMargin: "600px" });
    this.observer.observe(this.end);
    const page = element("section", { class: "cases", "aria-label": "Cases" }, this.filters(), element("div", { class: "panel table" },
      element("table", {}, element("caption", { class: "hidden-text" }, "All cases; a heading sorts by its column"), element("thead", {}, this.head), this.body)), this.end);
    this.show();
    return page;
  }

  heading(column) {
    const button = element("button", { type: "button", title: column.hint || false, onclick: () => {
      this.sort = this.sort.key === column.key ? { key: column.key, down: !this.sort.down } : { key: column.key, down: Boolean(column.down) };
      this.show();
      say(`Sorted by ${column.title}, ${this.sort.down ? "descending" : "ascending"}`);
    } }, column.title);
    return element("th", { scope: "col", class: column.numeric && "numeric", "data-key": column.key }, button);
  }

  filters() {
    const change = (name) => (event) => {
      this.filter[name] = event.target.value;
      this.show();
    };
    const choice = (name, label, options) => element("select", { "aria-label": label, onchange: change(name) },
      options.map(([value, text]) => element("option", { value, selected: this.filter[name] === value }, text)));
    return element("div", { class: "filters", role: "search" },
      element("input", { type: "search", id: "filter", placeholder: "Filter by name, flag or note", "aria-label": "Filter by name, flag or note", value: this.filter.text, oninput: change("text") }),
      choice("level", "Flags", [["", "all flags"], ["red", "red"], ["yellow", "yellow"], ["green", "usual"]]),
      choice("mark", "Marks", [["", "all marks"], ["unseen", "not looked at"], ["good", "good"], ["bad", "bad"], ["note", "with a note"]]),
      this.counted);
  }

  show() {
    this.arrange();
    for (const th of this.head.querySelectorAll("[data-key]"))
      th.setAttribute("aria-sort", th.dataset.key !== this.sort.key ? "none" : this.sort.down ? "descending" : "ascending");
    this.body.replaceChildren();
    this.shown = 0;
    this.more();
    const text = this.order.length === CASES.length ? `${CASES.length} cases` : `${this.order.length} of ${CASES.length} cases`;
    this.counted.textContent = text;
  }

  more() {
    const next = this.order.slice(this.shown, this.shown + ROWS_AT_ONCE);
    this.body.append(...next.map((index) => this.row(index)));
    this.shown += next.length;
  }

  row(index) {
    const one = CASES[index];
    const link = element("a", { href: `#/case/${index}`, tabindex: -1, "aria-hidden": "true" }, thumbnailOf(one));
    const cells = COLUMNS.map((column) => element("td", { class: column.numeric ? "numeric" : column.key, "data-label": column.title },
      column.key === "case" ? element("a", { href: `#/case/${index}`, "data-index": index, class: "case-link" }, column.cell(one)) : column.cell(one)));
    return element("tr", { class: `level-${one.level}`, onclick: (event) => {
      if (!event.target.closest("a")) location.hash = `#/case/${index}`;
    } }, element("td", { class: "picture" }, link), cells);
  }

  // The keys j and k: the focus goes to the next or previous row.
  step(by) {
    const links = [...this.body.querySelectorAll(".case-link")];
    const now = links.indexOf(document.activeElement);
    links[Math.min(Math.max(now + by, 0), links.length - 1)]?.focus();
  }
}
