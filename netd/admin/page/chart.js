// A small chart: a title, the newest value of each line (or the one under the pointer), and the lines.

import { bytes, clockTime } from "./format.js";

const HEIGHT = 96;
// Nearer to the left edge a time would be written over the other axis's nought, nearer to the right one it would be cut.
const MARGIN = 26;
const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);
const SYNC = uPlot.sync("netd");
let probe;

/** A colour of the style sheet, as the canvas wants it. */
function colour(name) {
  probe ??= document.body.appendChild(Object.assign(document.createElement("i"), { hidden: true }));
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/** The times to be written below, for the moments that have a line. */
function moments(plot, found) {
  const width = plot.bbox.width / devicePixelRatio;
  return found.map((each) => {
    const at = plot.valToPos(each, "x");
    return at < MARGIN || at > width - MARGIN ? "" : clockTime(new Date(each * 1000));
  });
}

export class Chart {
  /**
   * `lines` are labels; `format` writes values, `axis` those of the axis; `ceiling` is the least height of the axis. One
   * line may be `dashed`, so that another shows that lies beneath it.
   */
  constructor(parent, { title, help = "", lines, format, axis = format, ceiling = null, dashed = null }) {
    this.dashed = dashed;
    this.lines = lines;
    this.format = format;
    this.axis = axis;
    this.ceiling = ceiling;
    this.title = title;
    this.figure = document.createElement("figure");
    this.figure.dataset.chart = title;
    const caption = document.createElement("figcaption");
    const name = document.createElement("span");
    name.className = "title";
    name.textContent = title;
    name.title = help;
    this.keys = lines.map((line, at) => this.key(line, at));
    caption.append(name, ...this.keys.map((key) => key.row));
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.plot.setAttribute("role", "img");
    this.figure.append(caption, this.plot);
    parent.append(this.figure);
    this.draw();
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width && width !== this.chart.width) this.chart.setSize({ width, height: HEIGHT });
    }).observe(this.plot);
  }

  key(line, at) {
    const row = document.createElement("span");
    row.className = `key c${at % 6}`;
    const value = document.createElement("output");
    if (this.lines.length > 1) row.append(`${line} `);
    row.append(value);
    return { row, value };
  }

  /** Make the chart, in the colours of the theme. */
  draw() {
    const data = this.chart?.data ?? [[], ...this.lines.map(() => [])];
    this.chart?.destroy();
    const grid = { stroke: colour("--grid"), width: 1 };
    const axis = { stroke: colour("--muted"), grid, ticks: { show: false }, font: "10px system-ui, sans-serif" };
    this.chart = new uPlot({
      width: Math.floor(this.plot.clientWidth) || 300,
      height: HEIGHT,
      padding: [6, 4, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: SYNC.key }, drag: { x: false, y: false }, points: { size: 5 }, y: false },
      scales: {
        y: { range: (_, low, high) => [0, Math.max(high ?? 0, this.ceiling ?? 0) * 1.05 || 1] },
      },
      axes: [
        { ...axis, size: 20, gap: 3, space: 70, values: moments },
        { ...axis, size: 52, gap: 3, space: 26, incrs: this.axis === bytes ? BINARY : undefined, values: (_, values) => values.map((each) => (each === null ? "" : this.axis(each))) },
      ],
      series: [
        {},
        ...this.lines.map((line, at) => ({
          stroke: colour(`--c${at % 6}`),
          width: 1.5,
          fill: this.lines.length === 1 ? colour("--fill") : undefined,
          dash: line === this.dashed ? [5, 4] : undefined,
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: { setCursor: [() => this.tell()] },
    }, data, this.plot);
  }

  /** Draw these moments, in seconds since 1970, and a list of values for each line. */
  set(moments, lists) {
    this.chart.setData([moments, ...lists]);
    this.tell();
  }

  /** Write the values under the pointer, or the newest. */
  tell() {
    if (!this.chart) return;
    const [moments, ...lists] = this.chart.data;
    const at = this.chart.cursor.idx ?? moments.length - 1;
    const told = lists.map((list) => (list[at] === null || list[at] === undefined ? "–" : this.format(list[at])));
    told.forEach((text, line) => {
      if (this.keys[line].value.textContent !== text) this.keys[line].value.textContent = text;
    });
    const label = `${this.title}: ${this.lines.map((line, index) => (this.lines.length > 1 ? `${line} ${told[index]}` : told[index])).join(", ")}`;
    if (this.plot.ariaLabel !== label) this.plot.ariaLabel = label;
  }

  remove() {
    this.chart.destroy();
    this.figure.remove();
  }
}
