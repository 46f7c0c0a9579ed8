// Values as an operator reads them: the same as the console's.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const SHORT = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** 1536 → "1.5 KiB" */
export function bytes(value) {
  let unit = 0;
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 9.95 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** 12345 → "12,345"; a fraction keeps up to two digits. */
export function count(value) {
  return value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0 });
}

/** 12345 → "12.3k", for axes. */
export function short(value) {
  for (const [size, letter] of SHORT) {
    if (Math.abs(value) >= size) return `${+(value / size).toPrecision(3)}${letter}`;
  }
  return `${+value.toPrecision(3)}`;
}

/** 0.0042 → "4.2 ms", 312 → "5 m 12 s" */
export function duration(seconds) {
  if (seconds === 0) return "0";
  if (seconds < 0.001) return `${+(seconds * 1e6).toPrecision(3)} µs`;
  if (seconds < 1) return `${+(seconds * 1e3).toPrecision(3)} ms`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${seconds < 10 ? +seconds.toFixed(1) : whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} m`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** 0.256 → "25.6 %" */
export function share(value) {
  return `${+(value * 100).toFixed(1)} %`;
}

/** The way to write a figure, by the unit its name ends with. */
export function unitOf(name) {
  if (name.includes("bytes")) return bytes;
  return name.endsWith("seconds") ? duration : count;
}

export function clockTime(date) {
  return date.toLocaleTimeString("en-GB");
}
