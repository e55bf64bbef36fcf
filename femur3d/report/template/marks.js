// What people mark: looked at, good or bad, a note. Kept by the browser for this report, saved and loaded as CSV.

const MARKS_KEY = `femur3d-marks-${REPORT.id}`;
const MARK_NAMES = { good: "good", bad: "bad" };

class Marks {
  constructor() {
    this.byName = {};
    try {
      this.take(JSON.parse(localStorage.getItem(MARKS_KEY)) || {});
    } catch {
      // no storage, or not what was stored here: marks then last as long as the page
    }
  }

  take(stored) {
    for (const one of CASES) {
      const found = Object.hasOwn(stored, one.name) ? stored[one.name] : null;
      if (found) this.byName[one.name] = { mark: MARK_NAMES[found.mark] || "", note: String(found.note || ""), seen: String(found.seen || "") };
    }
  }

  of(one) {
    return Object.hasOwn(this.byName, one.name) ? this.byName[one.name] : { mark: "", note: "", seen: "" };
  }

  change(one, changes) {
    this.byName[one.name] = { ...this.of(one), ...changes };
    try {
      localStorage.setItem(MARKS_KEY, JSON.stringify(this.byName));
    } catch {
      say("This browser keeps no marks: save them before you close the page.");
    }
  }

  csv() {
    const lines = CASES.map((one) => {
      const { mark, note, seen } = this.of(one);
      return [one.name, seen ? "yes" : "no", mark, note, seen].map(csvCell).join(",");
    });
    return ["case,looked_at,mark,note,time", ...lines].join("\n") + "\n";
  }

  save() {
    const link = element("a", { href: URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" })), download: "marks.csv" });
    document.body.append(link);
    link.click();
    link.remove();
    say("marks.csv saved");
  }

  async load(file) {
    const [header, ...rows] = csvRows(await file.text());
    const column = (name) => (header || []).indexOf(name);
    if (column("case") < 0 || column("mark") < 0) return say(`${file.name}: no marks that were saved here`);
    const stored = {};
    for (const row of rows)
      stored[plainCell(row[column("case")])] = { mark: row[column("mark")], note: plainCell(row[column("note")] || ""), seen: row[column("time")] || "" };
    this.take(stored);
    for (const one of CASES) if (Object.hasOwn(stored, one.name)) this.change(one, {});
    say(`Marks of ${Object.keys(stored).length} cases loaded`);
  }
}

// Spreadsheets take a cell that begins so for a formula: an apostrophe makes it text.
function csvCell(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function plainCell(text) {
  return /^'[=+\-@\t\r]/.test(text) ? text.slice(1) : text;
}

function csvRows(text) {
  const rows = [];
  let [row, cell, quoted] = [[], "", false];
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === ",") {
      row.push(cell);
      cell = "";
    } else if (c === "\n") {
      rows.push([...row, cell.replace(/\r$/, "")]);
      [row, cell] = [[], ""];
    } else cell += c;
  }
  return cell || row.length ? [...rows, [...row, cell]] : rows;
}
