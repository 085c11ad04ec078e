/* What the cluster is and does, as the server says it: /v1/cluster whenever something changed, /v1/cluster/activity a few times a
 * second while somebody looks. Keeps the last seconds of every step, with its times at each stage (µs of the server's clock).
 * Everything drawn comes from here; nothing is made up between two words of the server. */

const ACTIVITY = {
  POLL_MS: 250,
  IDLE_POLL_MS: 1000, /* nothing is under way, or only the strip is seen */
  STATUS_MS: 5000,
  KEEP_US: 12e6,
  STEPS: 20000,
  FLYING: 128, /* the most that the server has under way */
};

const SENT = 0, STAGE = 1, LANDED = 2, BEGUN = 3, BROKEN = 4;

const activity = (() => {
  const listeners = [];
  const self = {
    status: null,   /* the last /v1/cluster */
    now: null,      /* the last activity's head */
    problem: "",    /* why there is nothing new */
    steps: [],      /* by time of sending: {batch, rows, wanted, sent, landed, lost, at: [{received, started, ended, rows, bytes}]} */
    byBatch: new Map(),
    skew: null,     /* the server's µs at performance.now() 0 */
    startedMs: 0,   /* the server's start, on our clock */
    rate: 0,        /* tokens a second, over the last seconds */
    rates: [],      /* [us, tokens] */
    close: false,   /* the drawing is seen: ask often */
    onChange: (f) => listeners.push(f),
    serverNow: () => (self.skew === null ? 0 : performance.now() * 1000 + self.skew),
    start: () => loop(),
    poke: () => wake && wake(),
  };
  let cursor = null;
  let statusAt = -1e9;
  let wake = null;
  let seen = "";

  function forget() {
    self.steps = [];
    self.byBatch = new Map();
    self.rates = [];
    self.rate = 0;
    cursor = null;
  }

  function takeRecord(r) {
    const [kind, batch] = r;
    let step = self.byBatch.get(batch);
    if (kind === SENT) {
      step = { batch, sent: r[2], rows: r[3], wanted: r[4], landed: 0, lost: 0, at: [] };
      self.steps.push(step);
      self.byBatch.set(batch, step);
    } else if (kind === STAGE && step) {
      step.at[r[2]] = { received: r[3], started: r[4], ended: r[5], rows: r[6], bytes: r[7] };
    } else if (kind === LANDED && step) {
      step.landed = r[2];
    } else if (kind === BROKEN || kind === BEGUN) {
      for (const s of self.steps) if (!s.landed && !s.lost) s.lost = r[2];
      self.byBatch.clear();
    }
  }

  function trim(now) {
    let n = Math.max(0, self.steps.length - ACTIVITY.STEPS);
    while (n < self.steps.length && self.steps[n].sent < now - ACTIVITY.KEEP_US) n++;
    for (let i = 0; i < n; i++) self.byBatch.delete(self.steps[i].batch);
    self.steps.splice(0, n);
  }

  function takeRate(now) {
    const r = self.rates;
    if (r.length && now.tokens < r[r.length - 1][1]) r.length = 0;
    r.push([now.now_us, now.tokens]);
    while (r.length > 2 && r[0][0] < now.now_us - 3e6) r.shift();
    const us = now.now_us - r[0][0];
    self.rate = us > 2e5 ? ((now.tokens - r[0][1]) * 1e6) / us : 0;
  }

  async function ask() {
    const began = performance.now();
    const now = await api.json("/v1/cluster/activity" + (cursor === null ? "" : "?since=" + cursor));
    const middle = ((began + performance.now()) / 2) * 1000;
    const skew = now.now_us - middle;

    if (self.skew !== null && Math.abs(skew - self.skew) > 5e6) forget(); /* another server */
    /* The offset of an answer that was slow on its way is worth less. */
    self.skew = self.skew === null || Math.abs(skew - self.skew) > 2e5 ? skew : self.skew + 0.1 * (skew - self.skew);
    self.startedMs = Date.now() - (performance.now() * 1000 + self.skew) / 1000;
    cursor = now.cursor;
    now.records.forEach(takeRecord);
    trim(now.now_us);
    if (!now.fresh) return;
    self.now = now;
    takeRate(now);
  }

  async function refresh() {
    self.status = await api.json("/v1/cluster");
    statusAt = performance.now();
  }

  async function once() {
    await ask();
    const mark = self.now ? [self.now.state, self.now.epoch, self.now.events].join() : "";
    const loading = !self.status || self.status.state !== "running";
    if (mark !== seen || loading || performance.now() - statusAt > ACTIVITY.STATUS_MS) await refresh();
    seen = mark;
    self.problem = "";
  }

  async function loop() {
    for (;;) {
      try {
        if (!document.hidden) await once();
      } catch (e) {
        self.problem = e.message;
        self.now = null;
        forget();
      }
      listeners.forEach((f) => f());
      const busy = self.now && self.now.open > 0;
      const wait = self.problem ? 1500 : self.close && busy ? ACTIVITY.POLL_MS : busy ? 500 : ACTIVITY.IDLE_POLL_MS;
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, wait);
      });
    }
  }

  /* --- what follows from it --- */

  /* Index of the first step that may be under way at time us: what was sent a little before may still be. */
  self.firstAt = (us) => {
    let low = 0, high = self.steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (self.steps[middle].sent < us) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - ACTIVITY.FLYING);
  };

  self.stages = () => (self.status && self.status.stages) || [];
  self.isBusy = () => self.now !== null && self.now.open > 0;

  /* Of stage i in [from, to): how long it computed; how long work was on its way to it while it did not; how long it had none
   * though some was under way. In µs, with the steps and the bytes it sent on. */
  self.shares = (i, from, to) => {
    const busy = [], wire = [], any = [];
    let steps = 0, sent = 0, took = 0;
    for (let k = self.firstAt(from); k < self.steps.length; k++) {
      const s = self.steps[k];
      if (s.sent > to) break;
      const end = s.landed || s.lost || to;
      if (end < from) continue;
      any.push([s.sent, end]);
      const at = s.at[i];
      const left = i === 0 ? s.sent : s.at[i - 1] && s.at[i - 1].ended;
      if (left) wire.push([left, at ? at.received : Math.min(end, to)]);
      if (!at) continue;
      busy.push([at.started, at.ended]);
      if (at.ended >= from && at.ended < to) {
        steps++;
        sent += at.bytes;
        took += at.ended - at.started;
      }
    }
    const b = union(busy, from, to);
    const bw = union([...busy, ...wire], from, to);
    const all = union([...busy, ...wire, ...any], from, to);
    return { busy: b, wire: bw - b, wait: all - bw, idle: to - from - all, steps, sent, step_us: steps ? took / steps : 0 };
  };

  function union(spans, from, to) {
    spans.sort((a, b) => a[0] - b[0]);
    let sum = 0, at = from;
    for (const [a, b] of spans) {
      const begin = Math.max(a, at), end = Math.min(b, to);
      if (end > begin) {
        sum += end - begin;
        at = end;
      }
    }
    return sum;
  }

  /* Who sets the pace: {index, ratio}: the slowest stage and how much slower than the next; null where there is none. By what
   * was measured, else by the plan. */
  self.slowest = () => {
    const times = self.stages().map((s) => (s.measured.batches > 3 ? s.measured.batch_ms : s.predicted.decode_ms));
    if (times.length < 2 || !times.every((t) => t > 0)) return null;
    const index = times.indexOf(Math.max(...times));
    const next = Math.max(...times.filter((_, i) => i !== index));
    return { index, ratio: times[index] / next, times };
  };

  return self;
})();
