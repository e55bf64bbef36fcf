// Charts of the cohort as SVG; every point leads to its case.

const CHART = { width: 460, height: 270, left: 52, right: 16, top: 14, bottom: 44 };

function niceTicks(low, high, count = 5) {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let i = Math.floor(low / step); i <= Math.ceil(high / step); i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

// The frame of a chart: axes with ticks and names; `x` and `y` take values to pixels.
class Chart {
  constructor(title, description, xTicks, yTicks, xName, yName) {
    const { width, height, left, right, top, bottom } = CHART;
    const [x0, x1] = [xTicks[0], xTicks[xTicks.length - 1]];
    const [y0, y1] = [yTicks[0], yTicks[yTicks.length - 1]];
    this.x = (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right);
    this.y = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - top - bottom);
    this.range = { x0, x1, y0, y1 };
    this.svg = drawing("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${title}. ${description}` });
    for (const v of yTicks) {
      this.line([x0, v], [x1, v], "grid");
      this.text(left - 8, this.y(v) + 4, v, "tick end");
    }
    for (const v of xTicks) this.text(this.x(v), height - bottom + 18, v, "tick");
    this.text((left + width - right) / 2, height - 6, xName, "axis");
    this.svg.append(drawing("text", { class: "axis", transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)` }, yName));
    this.figure = element("figure", { class: "panel chart" }, element("figcaption", {}, element("span", {}, title)), this.svg);
  }

  text(x, y, text, kind) {
    this.svg.append(drawing("text", { x, y, class: kind }, String(text).replace("-", "−")));
  }

  line(from, to, kind) {
    this.svg.append(drawing("line", { x1: this.x(from[0]), y1: this.y(from[1]), x2: this.x(to[0]), y2: this.y(to[1]), class: kind }));
  }

  point(x, y, kind, index, text) {
    this.svg.append(drawing("a", { href: `#/case/${index}`, "aria-label": text },
      drawing("circle", { cx: this.x(x), cy: this.y(y), r: 4.5, class: `point ${kind}` }, drawing("title", {}, text))));
  }

  legend(names) {
    this.figure.firstChild.append(element("span", { class: "legend" },
      names.map(([kind, name]) => element("span", {}, element("span", { class: `swatch ${kind}` }), name))));
    return this.figure;
  }
}

// Values of each side in bins, side by side. `values` is {side: [[value, case index]]}.
function histogram(title, name, values) {
  const all = Object.values(values).flat().map(([v]) => v);
  if (!all.length) return null;
  const ticks = niceTicks(Math.min(...all), Math.max(...all), 6);
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const bins = Math.min(24, 2 * (ticks.length - 1));
  const width = (high - low) / bins;
  const sides = Object.keys(values).filter((side) => values[side].length);
  const counts = sides.map((side) => {
    const count = new Array(bins).fill(0);
    for (const [v] of values[side]) count[Math.min(bins - 1, Math.floor((v - low) / width))]++;
    return count;
  });
  const top = Math.max(...counts.flat());
  const yTicks = niceTicks(0, top, Math.min(5, top)).filter(Number.isInteger);
  const text = `${all.length} femurs from ${Math.min(...all).toPrecision(3)} to ${Math.max(...all).toPrecision(3)}`;
  const chart = new Chart(title, text, ticks, yTicks, name, "femurs");
  sides.forEach((side, s) => counts[s].forEach((count, bin) => {
    if (!count) return;
    const [from, to] = [low + (bin + (s + 0.06) / sides.length) * width, low + (bin + (s + 0.94) / sides.length) * width];
    const [x, y] = [chart.x(from), chart.y(count)];
    const said = `${SIDES[side]}: ${count} from ${(low + bin * width).toPrecision(3)} to ${(low + (bin + 1) * width).toPrecision(3)}`;
    chart.svg.append(drawing("rect", { x, y, width: chart.x(to) - x, height: chart.y(0) - y, rx: 1.5, class: `block ${side}` }, drawing("title", {}, said)));
  }));
  return chart.legend(sides.map((side) => [side, SIDES[side]]));
}

// Left against right; on the line both are the same.
function leftAgainstRight(title, name, pairs) {
  if (!pairs.length) return null;
  const all = pairs.flatMap(([left, right]) => [left, right]);
  const ticks = niceTicks(Math.min(...all), Math.max(...all), 6);
  const chart = new Chart(title, `${pairs.length} cases`, ticks, ticks, `right, ${name}`, `left, ${name}`);
  chart.line([ticks[0], ticks[0]], [ticks[ticks.length - 1], ticks[ticks.length - 1]], "guide");
  for (const [left, right, index] of pairs)
    chart.point(right, left, CASES[index].level, index, `${CASES[index].name}: left ${left.toFixed(1)}, right ${right.toFixed(1)}`);
  return chart.legend([]);
}

// Bland and Altman 1986: differences over means, with bias and limits of agreement.
function blandAltman(rows, agreement) {
  if (!rows.length) return null;
  const lines = [
    [agreement.upper_limit_ml, "guide dashed", "+1.96 SD"], [agreement.bias_ml, "guide", "bias"], [agreement.lower_limit_ml, "guide dashed", "−1.96 SD"],
  ].map(([v, kind, name]) => [number(v), kind, name]).filter(([v]) => Number.isFinite(v));
  const [means, gaps] = [rows.map((row) => row.mean), rows.map((row) => row.difference)];
  const reach = [...gaps, ...lines.map(([v]) => v), 0];
  const chart = new Chart("Bland–Altman of the volumes", `bias ${shown(agreement.bias_ml, 1)} ml`,
    niceTicks(Math.min(...means), Math.max(...means), 6), niceTicks(Math.min(...reach), Math.max(...reach), 6),
    "mean of reference and segmentation, ml", "segmentation − reference, ml");
  for (const [v, kind, name] of lines) {
    chart.line([chart.range.x0, v], [chart.range.x1, v], kind);
    chart.text(CHART.width - CHART.right - 4, chart.y(v) - 5, `${name} ${v.toFixed(1)}`, "note end");
  }
  for (const row of rows)
    chart.point(row.mean, row.difference, row.side, row.index, `${CASES[row.index].name}, ${row.side}: ${row.difference.toFixed(1)} ml`);
  return chart.legend([...new Set(rows.map((row) => row.side))].map((side) => [side, SIDES[side] || side]));
}

// How many cases have each flag, red and yellow.
function flagsByKind() {
  const counts = new Map();
  for (const one of CASES)
    for (const flag of one.flags)
      if (flag.level === "red" || flag.level === "yellow") {
        const count = counts.get(flag.name) || { red: 0, yellow: 0 };
        count[flag.level]++;
        counts.set(flag.name, count);
      }
  const most = Math.max(1, ...[...counts.values()].map((c) => c.red + c.yellow));
  const rows = [...counts].sort(([, a], [, b]) => b.red - a.red || b.yellow - a.yellow).map(([name, count]) => {
    const bar = ["red", "yellow"].filter((level) => count[level]).map((level) => {
      const part = element("span", { class: `bar-part ${level}`, title: `${count[level]} ${level}` }, String(count[level]));
      part.style.width = `${(100 * count[level]) / most}%`;
      return part;
    });
    return element("div", { class: "bar-row" }, element("dt", {}, words(name)), element("dd", {}, ...bar));
  });
  return element("figure", { class: "panel chart" },
    element("figcaption", {}, element("span", {}, "Flags by kind"), element("span", { class: "legend" },
      element("span", {}, element("span", { class: "swatch red" }), "red"), element("span", {}, element("span", { class: "swatch yellow" }), "yellow"))),
    rows.length ? element("dl", { class: "bars" }, rows) : element("p", { class: "empty" }, "No case has a red or yellow flag."));
}

function words(name) {
  return name.replace(/_(ml|mm|cm2)$/, "").replaceAll("_", " ");
}
