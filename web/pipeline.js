/* The drawing: a line with a station for each stage, from the coordinator down and back to it, and the batches that travel on it.
 * A batch is where the server said it was at that time. Steps of some milliseconds are nothing to look at, so they are shown
 * slowed, a few at a time, and it says by how much; steps of a second are shown as they happen, a moment later. */

const PLAY = {
  LAG_US: 700e3,     /* by then the server has told */
  STEP_US: 1800e3,   /* a step should take so long on the screen */
  STEPS: 4,          /* and so many are shown before it looks at newer ones */
  SLOW_US: 600e3,    /* steps that take longer are not slowed */
  BACK_MS: 10000,    /* a worker that was replaced between two looks is still worth a word */
};

const play = (() => {
  let base = 0, began = 0, until = 0;
  const self = { speed: 1, at: 0, playing: false };

  function typical() {
    const times = activity.steps.slice(-40).filter((s) => s.landed).map((s) => s.landed - s.sent).sort((a, b) => a - b);
    return times.length ? times[times.length >> 1] : 0;
  }

  function restart(newest) {
    const step = typical();
    const now = performance.now();
    began = now;
    self.playing = true;
    if (!step || step >= PLAY.SLOW_US) {
      self.speed = 1;
      base = newest;
      until = Infinity;
      return;
    }
    self.speed = step / PLAY.STEP_US;
    let i = activity.steps.length - 1;
    while (i >= 0 && activity.steps[i].sent >= newest) i--;
    const last = activity.steps[i];
    if (!last || last.sent <= self.at) {
      self.playing = false;
      return;
    }
    base = Math.max(last.sent - step * PLAY.STEPS, self.at);
    until = base + step * PLAY.STEPS;
  }

  /* The server's time that is on the screen now. */
  self.tick = () => {
    const newest = activity.serverNow() - PLAY.LAG_US;
    if (!activity.steps.length) {
      self.playing = false;
      return 0;
    }
    if (!self.playing || self.at > newest + 1e6) restart(newest);
    if (!self.playing) return self.at;
    self.at = base + (performance.now() - began) * 1000 * self.speed;
    if (self.at >= until || (self.speed === 1 && typical() && typical() < PLAY.SLOW_US)) restart(newest);
    return self.at;
  };
  return self;
})();

/* Where a step is at time t: {stage, part: "link" | "wait" | "work" | "unknown", f}; null: nowhere. Stage n is the way back. */
function placeOf(step, n, t) {
  if (t < step.sent || (step.landed && t >= step.landed) || (step.lost && t >= step.lost)) return null;
  for (let i = 0; i <= n; i++) {
    const left = i ? step.at[i - 1].ended : step.sent;
    const at = i < n ? step.at[i] : null;
    const came = i < n ? at && at.received : step.landed;
    if (!came) return { stage: i, part: "unknown", f: 0.5 };
    if (t < came) return { stage: i, part: "link", f: came > left ? clamp((t - left) / (came - left), 0, 1) : 1 };
    if (!at) return null;
    if (t < at.started) return { stage: i, part: "wait", f: 0 };
    if (t < at.ended) return { stage: i, part: "work", f: (t - at.started) / Math.max(1, at.ended - at.started) };
  }
  return null;
}

const pipeline = (() => {
  const RAIL_X = 18;
  let root = null, rail = null, dots = null, speedText = null;
  let cards = [], links = [];
  let last = []; /* the stages that were there before they were lost */
  let path = []; /* [y of the station's top, y of its bottom] */
  const self = { cards: () => cards };

  function bar(label) {
    return el("div.bar", { role: "img", "aria-label": label });
  }

  function makeCard(i) {
    const parts = {
      name: el("h3"), place: el("span.place"), badge: el("span.badge", { hidden: true }), layers: el("p.layers"), map: el("div.map", { "aria-hidden": "true" }),
      mine: el("i"), memoryText: el("p.fine"), memory: bar(""), kv: el("i.kv"), weights: el("i.weights"), shares: bar(""), sharesText: el("p.fine.does"),
      step: el("span.step"), plan: el("span.plan"), lane: el("canvas.lane", { role: "img", "aria-label": "The last seconds of this stage" }),
      node: "", restarts: 0, backUntil: 0, busy: el("i.busy"), wire: el("i.wire"), wait: el("i.wait"), loading: el("p.loading", { hidden: true }),
    };
    parts.map.append(parts.mine);
    parts.memory.append(parts.weights, parts.kv);
    parts.shares.append(parts.busy, parts.wire, parts.wait);
    parts.root = el("article.stage", { "data-stage": i },
      el("div.what", null, el("div.title", null, parts.name, parts.place, parts.badge), parts.layers, parts.map, parts.loading),
      el("div.load", null, el("div.row", null, parts.step, el("span.grow"), parts.plan), parts.shares, parts.sharesText, parts.memory, parts.memoryText),
      el("div.when", null, parts.lane));
    return parts;
  }

  function makeLink() {
    const label = el("span");
    return { root: el("div.link", null, label), label };
  }

  function build(n) {
    cards = Array.from({ length: n }, (_, i) => makeCard(i));
    links = Array.from({ length: n + 1 }, makeLink);
    const items = cards.flatMap((c, i) => [links[i].root, c.root]);
    root.querySelector(".stops").replaceChildren(...items, links[n].root);
    measure();
  }

  self.make = () => {
    rail = svg("svg", { class: "rail", "aria-hidden": "true" });
    dots = svg("g");
    speedText = el("span.speed");
    root = el("section.line", { "aria-label": "The pipeline" },
      rail,
      el("div.terminal.first", null, el("b", null, "Coordinator"), el("span.fine", { id: "queue" }), el("span.grow"), speedText),
      el("div.stops"),
      el("div.terminal.last", null, el("b", null, "Coordinator"), el("span.fine", null, "the tokens come back")));
    new ResizeObserver(measure).observe(root);
    return root;
  };

  /* Where the stations are, for the rail. */
  function measure() {
    if (!root || !root.isConnected || !root.clientHeight) return;
    const top = root.getBoundingClientRect().top;
    const at = (node) => {
      const r = node.getBoundingClientRect();
      return [r.top - top, r.bottom - top];
    };
    const first = at(root.querySelector(".first")), end = at(root.querySelector(".last"));
    path = [[first[0] + 20, first[0] + 20], ...cards.map((c) => at(c.root)).map(([a, b]) => [a + 14, b - 14]), [end[0] + 20, end[0] + 20]];
    rail.setAttribute("width", 36);
    rail.setAttribute("height", root.clientHeight);
    const line = svg("path", { d: `M${RAIL_X} ${path[0][0]}V${path[path.length - 1][0]}`, class: "track" });
    const stations = path.map(([a, b], i) =>
      i === 0 || i === path.length - 1
        ? svg("circle", { cx: RAIL_X, cy: a, r: 6, class: "end" })
        : svg("rect", { x: RAIL_X - 9, y: a, width: 18, height: Math.max(18, b - a), rx: 9, class: "station", "data-stage": i - 1 }));
    rail.replaceChildren(line, ...stations, dots);
  }

  const yOf = (p) => {
    const [from, to] = [path[p.stage], path[p.stage + 1]];
    const inset = Math.min(9, (to[1] - to[0]) / 2);
    if (p.part === "link") return from[1] + p.f * (to[0] - from[1]);
    if (p.part === "wait") return to[0] + inset;
    return to[0] + inset + p.f * (to[1] - to[0] - 2 * inset);
  };

  /* Draws the batches under way at the playhead. */
  self.draw = () => {
    if (calm.matches || path.length < 3) {
      dots.replaceChildren();
      text(speedText, "");
      return;
    }
    const n = cards.length;
    const t = play.tick();
    const now = [];
    const from = activity.steps.length - 400;
    for (const step of activity.steps.slice(Math.max(0, from))) {
      const p = play.playing ? placeOf(step, n, t) : null;
      if (p) now.push([step, p]);
    }
    while (dots.childNodes.length > now.length) dots.lastChild.remove();
    while (dots.childNodes.length < now.length) dots.append(svg("circle", { cx: RAIL_X }));
    const working = new Set();
    now.forEach(([step, p], i) => {
      const dot = dots.childNodes[i];
      dot.setAttribute("cy", yOf(p).toFixed(1));
      dot.setAttribute("r", (5 + 1.5 * Math.min(2, Math.log10(step.rows))).toFixed(1));
      dot.setAttribute("class", "batch" + (step.rows > step.wanted ? " prompt" : "") + (p.part === "unknown" ? " unknown" : ""));
      if (p.part === "work" && p.stage < n) working.add(p.stage);
    });
    for (const station of rail.querySelectorAll(".station")) station.classList.toggle("works", working.has(+station.dataset.stage));
    const slower = 1 / play.speed;
    text(speedText, !now.length ? "" : slower < 1.5 ? "as it happens" : `slowed ${slower < 10 ? slower.toFixed(1) : Math.round(slower)}×`);
  };

  function showStage(c, s, i, total, status, slowest) {
    const node = status.nodes.find((x) => x.name === s.node) || {};
    const lost = node.state !== "here" && node.state !== "drained";
    const [first, end] = s.layers;
    const used = s.bytes.weights + s.bytes.kv + s.bytes.scratch;
    const room = Math.max(s.memory_bytes, used, 1);
    const what = [i === 0 ? "embedding" : "", `layers ${first}–${end}`, i === total - 1 ? "head" : ""].filter(Boolean).join(" + ");

    text(c.name, s.node);
    text(c.place, s.device + (node.isa ? " · " + node.isa + " · " + count(node.threads, "thread") : ""));
    text(c.layers, what);
    c.mine.style.left = (100 * first) / status.layers + "%";
    c.mine.style.width = (100 * (end + 1 - first)) / status.layers + "%";
    c.root.classList.toggle("lost", lost);
    c.root.classList.toggle("slow", slowest === i);
    if (c.node === s.node && node.restarts > c.restarts) c.backUntil = performance.now() + PLAY.BACK_MS;
    c.node = s.node;
    c.restarts = node.restarts;
    const back = !lost && performance.now() < c.backUntil;
    c.badge.hidden = !lost && !back && slowest !== i;
    text(c.badge, lost ? "lost" : back ? "restarted" : "slowest");
    c.badge.title = lost ? "It is being replaced" : back ? "Its process had ended, and was started again" : "The others wait for this one: it sets the pace";
    const has = ((node.devices || []).find((x) => x.name === s.device) || {}).memory_bytes || 0;
    const there = room < 0.99 * has ? `, the most that plans may use of ${bytes(has)}` : "";
    text(c.memoryText, (used ? `memory ${bytes(used)} of ${bytes(room)}` : `memory ${bytes(room)}`) + there);
    set(c.memory, { "aria-label": `Memory: weights ${bytes(s.bytes.weights)}, KV cache ${bytes(s.bytes.kv)} of ${bytes(room)}` });
    c.memory.title = `weights ${bytes(s.bytes.weights)}, KV cache ${bytes(s.bytes.kv)}, scratch ${bytes(s.bytes.scratch)} of ${bytes(room)}`;
    c.weights.style.width = (100 * s.bytes.weights) / room + "%";
    c.kv.style.width = (100 * (s.bytes.kv + s.bytes.scratch)) / room + "%";
    const measured = s.measured.batches > 0;
    text(c.step, measured ? `${duration(s.measured.batch_ms)} a step` : "");
    text(c.plan, s.predicted.decode_ms > 0 ? `plan ${duration(s.predicted.decode_ms)}` : "");
    c.plan.title = "What the plan says for a step of one sequence";
    const load = node.loading;
    c.loading.hidden = s.ready || lost || !load;
    if (load) text(c.loading, `loading, ${bytes(load.done_bytes)} of ${bytes(load.total_bytes)}`);
  }

  function showShares(c, i, from, to) {
    const x = activity.shares(i, from, to);
    const all = to - from;
    const parts = [["busy", "computes", x.busy], ["wire", "wire", x.wire], ["wait", "waits", x.wait]];
    for (const [name, , us] of parts) c[name].style.width = (100 * us) / all + "%";
    const words = x.idle > 0.98 * all ? "nothing to do" : parts.filter((p) => p[2] > 0.005 * all).map((p) => `${p[1]} ${percent(p[2] / all)}`).join(" · ");
    text(c.sharesText, words);
    set(c.shares, { "aria-label": "The last seconds: " + words });
    return x;
  }

  function showLink(l, i, status, before, seconds) {
    const link = (status.links || [])[i];
    if (!link) return text(l.label, "");
    const words = [];
    if (link.measured_ms > 0) words.push(duration(link.measured_ms));
    else if (link.predicted_ms > 0) words.push(duration(link.predicted_ms) + " planned");
    const rate = before ? before.sent / seconds : 0;
    if (rate > 0 && link.form !== "tokens") words.push(bytes(rate) + "/s");
    if (link.form !== "tokens") words.push(link.form);
    if (link.relayed) words.push("through the coordinator");
    text(l.label, words.join(" · "));
    l.root.title = `The way of a batch; the plan says ${duration(link.predicted_ms)}`;
  }

  /* Texts and bars; a few times a second. */
  self.show = (status, slowest) => {
    if (status.stages.length) last = status.stages;
    const stages = last;
    if (stages.length !== cards.length) build(stages.length);
    const to = activity.serverNow() - PLAY.LAG_US, from = to - 3e6;
    let before = null;
    stages.forEach((s, i) => {
      showStage(cards[i], s, i, stages.length, status, slowest);
      showLink(links[i], i, status, before, 3);
      before = showShares(cards[i], i, from, to);
    });
    if (stages.length) showLink(links[stages.length], stages.length, status, null, 3);
    root.hidden = stages.length === 0;
    const now = activity.now;
    text($("queue"), !now ? "" : now.waiting ? `${count(now.running, "sequence")} under way, ${now.waiting} waiting` : now.running ? `${count(now.running, "sequence")} under way` : "no requests");
    if (stages.length && path.length !== stages.length + 2) measure();
  };
  return self;
})();
