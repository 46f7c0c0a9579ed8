// The daemon's events, and whether they still come. The browser reconnects a broken stream by itself; one that the
// daemon refused is tried again here.

const STALE_AFTER = 3500;
const RETRY_FIRST = 1000;
const RETRY_LONGEST = 10000;

export class Feed {
  /** `listener` has `hello(document)`, `status(document)` and `stale(since)`: a moment, or null when news come again. */
  constructor(url, listener) {
    this.url = url;
    this.listener = listener;
    this.last = Date.now();
    this.retry = RETRY_FIRST;
    this.connect();
    setInterval(() => this.check(), 500);
  }

  connect() {
    this.source = new EventSource(this.url);
    this.source.addEventListener("hello", (event) => this.listener.hello(JSON.parse(event.data)));
    this.source.addEventListener("status", (event) => {
      this.last = Date.now();
      this.retry = RETRY_FIRST;
      this.listener.status(JSON.parse(event.data));
      this.listener.stale(null);
    });
    this.source.addEventListener("error", () => {
      if (this.source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => this.connect(), this.retry);
      this.retry = Math.min(this.retry * 2, RETRY_LONGEST);
    });
  }

  check() {
    if (Date.now() - this.last > STALE_AFTER) this.listener.stale(this.last);
  }
}
