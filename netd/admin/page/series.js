// The last minutes of every figure, a list each, beside the list of their moments.

const LENGTH = 600;

export class Series {
  constructor() {
    this.clock = [];
    this.figures = new Map();
  }

  /** Begin anew with what the daemon remembers: `{clock: […], figures: {service: {name: […]}}}`. */
  load(history) {
    this.clock = [...history.clock];
    this.figures = new Map();
    for (const [service, names] of Object.entries(history.figures)) {
      for (const [name, values] of Object.entries(names)) this.figures.set(`${service} ${name}`, [...values]);
    }
  }

  /** One sample more: `[clock, {service: {name: value}}]`; one that is known already is passed over. */
  add([clock, services]) {
    if (this.clock.length && clock <= this.clock.at(-1)) return;
    this.clock.push(clock);
    for (const [service, names] of Object.entries(services)) {
      for (const name of Object.keys(names)) {
        const key = `${service} ${name}`;
        if (!this.figures.has(key)) this.figures.set(key, new Array(this.clock.length - 1).fill(null));
      }
    }
    const surplus = Math.max(0, this.clock.length - LENGTH);
    this.clock.splice(0, surplus);
    for (const [key, values] of this.figures) {
      const [service, name] = key.split(" ");
      values.push(services[service]?.[name] ?? null);
      values.splice(0, surplus);
    }
  }

  /** The values of a figure; null where there was none. */
  values(service, name) {
    return this.figures.get(`${service} ${name}`) ?? new Array(this.clock.length).fill(null);
  }

  /** How much a counter grew per second; null where it began anew. */
  rates(service, name) {
    const values = this.values(service, name);
    return values.map((value, at) => {
      const before = values[at - 1];
      if (value === null || before === null || before === undefined || value < before) return null;
      return (value - before) / (this.clock[at] - this.clock[at - 1]);
    });
  }

  /** The newest rate of a counter, over the last few seconds. */
  rate(service, name, seconds = 3) {
    const values = this.values(service, name);
    const end = values.length - 1;
    let begin = end;
    while (begin > 0 && this.clock[end] - this.clock[begin] < seconds - 0.5) begin -= 1;
    if (begin === end || values[begin] === null || values[end] === null) return 0;
    return Math.max(0, values[end] - values[begin]) / (this.clock[end] - this.clock[begin]);
  }
}

/** The share that the first list has of all of them together, moment by moment; null where all are nothing. */
export function shareOf(lists) {
  return lists[0].map((first, at) => {
    const sum = lists.reduce((total, list) => total + (list[at] ?? 0), 0);
    return sum > 0 ? (first ?? 0) / sum : null;
  });
}
