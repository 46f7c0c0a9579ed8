// One service: what it draws, and every figure it counts.

import { Chart } from "./chart.js";
import { element, text } from "./dom.js";
import { bytes, count, duration, share, short, unitOf } from "./format.js";
import { shareOf } from "./series.js";

// A service with so many charts is half as wide as the page.
const NARROW = 2;

/** A way to write, for what grows per second. */
export function perSecond(format) {
  return (value) => `${format(value)}/s`;
}

export class ServiceDetails {
  /** `about` is what the daemon said of figures, by kind, and of charts, by service. */
  constructor(parent, service, about, series) {
    this.name = service.name;
    this.meanings = about.figures[service.kind] ?? {};
    this.series = series;
    this.charts = [];
    this.cells = new Map();
    this.state = element("span", { className: "chip" });
    this.where = element("span", { className: "where" });
    this.reason = element("p", { className: "reason", hidden: true });
    this.body = element("tbody");
    const plots = element("div", { className: "charts" });
    this.section = element("section", { id: service.name, className: "service" },
      element("h3", {}, service.name, " ", this.state, " ", this.where), this.reason, plots, this.table());
    parent.append(this.section);
    this.addCharts(plots, about.charts[service.name] ?? [], about.latencies[service.name] ?? {});
    this.section.classList.toggle("wide", this.charts.length > NARROW);
  }

  table() {
    const heads = ["Figure", "Now", "Per second", "Meaning"];
    const head = element("tr", {}, ...heads.map((each, at) => element("th", { scope: "col", className: at === 1 || at === 2 ? "n" : "" }, each)));
    return element("details", {}, element("summary", {}, "All figures"), element("table", {}, element("thead", {}, head), this.body));
  }

  addCharts(parent, declared, latencies) {
    const add = (options, lists) => this.charts.push({ chart: new Chart(parent, options), lists });
    for (const { title, lines, share: isShare } of declared) {
      const names = Object.values(lines);
      const lists = () => names.map((name) => this.values(name));
      if (isShare) {
        add({ title, lines: [title], format: share, ceiling: 1 }, () => [shareOf(lists())]);
      } else {
        const unit = unitOf(names[0]);
        const rate = this.meanings[names[0]]?.type === "counter";
        add({ title, lines: Object.keys(lines), format: rate ? perSecond(unit) : unit, axis: unit === count ? short : unit, ceiling: unit === count ? 4 : null }, lists);
      }
    }
    for (const [name, help] of Object.entries(latencies)) {
      add({ title: help, lines: ["p50", "p99"], format: duration, ceiling: 0.001 },
        () => ["p50", "p99"].map((each) => this.series.values(this.name, `${name}.${each}`)));
    }
    add({ title: "Connections", lines: ["open"], format: count, axis: short, ceiling: 4 }, () => [this.series.values(this.name, "connections")]);
    add({ title: "Traffic", lines: ["in", "out"], format: perSecond(bytes), axis: bytes, ceiling: 1024, dashed: "out" },
      () => [this.series.rates(this.name, "bytes_in"), this.series.rates(this.name, "bytes_out")]);
  }

  /** A figure over time: a counter by its rate. */
  values(name) {
    return this.meanings[name]?.type === "counter" ? this.series.rates(this.name, name) : this.series.values(this.name, name);
  }

  /** Say what the newest status says. */
  update(service) {
    text(this.state, service.state);
    this.state.dataset.state = service.state;
    text(this.where, service.listening.join("  "));
    this.reason.hidden = !service.reason;
    text(this.reason, service.reason);
    const refused = Object.entries(service.refused).map(([reason, value]) => [`connections_refused_${reason}`, value]);
    const plain = { connections: service.connections, connections_accepted: service.accepted, bytes_in: service.bytes_in, bytes_out: service.bytes_out };
    const all = Object.entries({ ...plain, ...Object.fromEntries(refused), ...service.stats });
    for (const [name, value] of all) this.figure(name, value);
    for (const [name, each] of Object.entries(service.latency)) {
      for (const quantile of ["p50", "p90", "p99"]) this.figure(`${name} ${quantile} seconds`, each[quantile], "Since the start");
    }
  }

  figure(name, value, meaning = "") {
    if (!this.cells.has(name)) {
      const cells = [element("td", { className: "n" }), element("td", { className: "n" }), element("td", {}, this.meanings[name]?.help ?? meaning)];
      this.body.append(element("tr", {}, element("th", { scope: "row" }, name.replaceAll("_", " ")), ...cells));
      this.cells.set(name, cells);
    }
    const [now, rate] = this.cells.get(name);
    const unit = unitOf(name);
    text(now, unit(value));
    const grows = this.meanings[name]?.type === "counter" || ["connections_accepted", "bytes_in", "bytes_out"].includes(name);
    if (grows) text(rate, unit(this.series.rate(this.name, name)));
  }

  draw(moments, from) {
    for (const { chart, lists } of this.charts) chart.set(moments, lists().map((list) => list.slice(from)));
  }

  restyle() {
    for (const each of this.charts) each.chart.draw();
  }

  remove() {
    for (const each of this.charts) each.chart.remove();
    this.section.remove();
  }
}
