/* The view of the cluster, and the strip above the chat that says the same in one line. */

const clusterView = (() => {
  const parts = {};
  let lastPaint = 0;

  function figure(id, label) {
    parts[id] = el("b", null, "–");
    parts[id + "More"] = el("small");
    return el("div.figure", null, el("span", null, label), parts[id], parts[id + "More"]);
  }

  function make() {
    parts.headline = el("h1");
    parts.sentence = el("p.lead");
    parts.problem = el("p.problem", { role: "alert", hidden: true });
    parts.others = el("ul.others");
    parts.othersBox = el("section.box", { hidden: true, "aria-label": "Other machines" }, el("h2", null, "Not part of the pipeline"), parts.others);
    parts.events = el("ol.events");
    $("cluster").append(el("div.page", null,
      parts.problem, parts.headline, parts.sentence,
      el("div.figures", null, figure("rate", "Tokens a second"), figure("plan", "The plan says"), figure("flight", "Batches under way"), figure("cache", "KV cache")),
      el("div.tools", null, timeline.legend(), el("span.grow"), timeline.controls()),
      pipeline.make(),
      parts.othersBox,
      el("section.box", { "aria-label": "Events" }, el("h2", null, "What happened"), parts.events)));
  }

  const machines = (status) => new Set(status.stages.map((s) => s.node)).size;
  /* The server's own processes are not machines. */
  const isLocal = (status) => status.stages.length > 0 && status.stages.every((s) => (status.nodes.find((n) => n.name === s.node) || {}).pid);

  function headline(status) {
    const n = machines(status);
    const model = status.model || "the model";
    const what = isLocal(status) ? "worker" : "machine";
    if (status.health === "failed") return [`${model} cannot be served`, "The events below say why."];
    if (status.state === "running" && n === 1) return [`One ${what} runs ${model}`, "Start more workers, and they share its layers."];
    if (status.state === "running") return [`${count(n, what)} ${isLocal(status) ? "on one machine " : ""}share ${model}`, pace(status)];
    if (status.health === "recovering") return [`${model} is being repaired`, "A part of the pipeline was lost. Answers under way wait, and go on with the same tokens."];
    return [`${model} is being loaded`, n ? `${count(n, what)} will share its ${status.layers} layers.` : "Waiting for machines."];
  }

  function pace(status) {
    const slow = activity.slowest();
    const layers = `Its ${status.layers} layers are divided among them.`;
    if (!slow) return layers;
    if (slow.ratio < 1.1) return layers + " They are about equally fast.";
    const s = status.stages[slow.index];
    const word = status.stages.length === 2 ? "the other one" : "the others";
    return `${layers} ${s.node} is the slowest, ${duration(slow.times[slow.index])} a step: ${word} wait${status.stages.length === 2 ? "s" : ""} for it.`;
  }

  const slowIndex = () => {
    const slow = activity.slowest();
    return slow && slow.ratio >= 1.1 ? slow.index : -1;
  };

  function showFigures(status) {
    const now = activity.now, p = status.predicted;
    const busy = now && now.running > 0;
    text(parts.rate, busy && activity.rate > 0 ? digits(activity.rate) : "–");
    text(parts.rateMore, !busy ? "nobody asks" : p && p.tokens_per_s_now > 0 && activity.rate > 0 ? `${percent(activity.rate / p.tokens_per_s_now)} of the plan` : "measured");
    if (p && busy && p.tokens_per_s_now > 0) {
      text(parts.plan, digits(p.tokens_per_s_now));
      text(parts.planMore, `with ${count(p.decoding, "sequence")}`);
    } else if (p) {
      text(parts.plan, digits(p.tokens_per_s_1));
      text(parts.planMore, `alone, ${digits(p.tokens_per_s_n)} with ${p.n}`);
    } else {
      text(parts.plan, "–");
      text(parts.planMore, "");
    }
    text(parts.flight, now ? String(now.in_flight) : "–");
    text(parts.flightMore, now && now.open ? `${now.in_flight_wanted} would keep all busy` : "");
    const all = now ? now.blocks[0] + now.blocks[1] + now.blocks[2] : 0;
    text(parts.cache, all ? percent(now.blocks[0] / all) : "–");
    text(parts.cacheMore, all ? `${percent(now.blocks[1] / all)} kept for prompts that begin alike` : "");
  }

  function showOthers(status) {
    const used = new Set(status.stages.map((s) => s.node));
    const others = status.nodes.filter((n) => !used.has(n.name));
    parts.othersBox.hidden = others.length === 0 || status.stages.length === 0;
    const words = (n) => {
      const state = n.state === "drained" ? "drained: not to be used" : n.state;
      if (n.left_out) return (n.state === "here" ? "left out" : state) + ": " + n.left_out;
      return (n.standby ? "standby, " : "") + state;
    };
    parts.others.replaceChildren(...others.map((n) => el("li", null, el("b", null, n.name), " ", words(n))));
  }

  let eventsSeen = "";
  function showEvents(status) {
    const list = status.events.slice(-60).reverse();
    const mark = Math.round(activity.startedMs / 1000) + list.length + (list.length ? list[0].at_s + list[0].text : "");
    if (mark === eventsSeen) return;
    eventsSeen = mark;
    parts.events.replaceChildren(...list.map((e) => el("li." + e.kind, null,
      el("time", { title: `${e.at_s.toFixed(1)} s after the start` }, clock(activity.startedMs + e.at_s * 1000)), el("span", null, e.text))));
  }

  /* --- the strip --- */

  function showStrip(status) {
    const strip = $("strip");
    const stages = status.stages.length ? status.stages : strip.lastStages || [];
    if (status.stages.length) strip.lastStages = status.stages;
    strip.hidden = stages.length === 0;
    strip.classList.toggle("many", stages.length > 5);
    const slow = slowIndex();
    const to = activity.serverNow() - PLAY.LAG_US;
    if (strip.children.length !== stages.length)
      strip.replaceChildren(...stages.map(() => el("span.segment", null, el("span.name"), el("span.layers"), el("span.meter", null, el("i")))));
    stages.forEach((s, i) => {
      const node = status.nodes.find((n) => n.name === s.node) || {};
      const stop = strip.children[i];
      const lost = node.state !== "here" && node.state !== "drained";
      const busy = lost ? 0 : activity.shares(i, to - 2e6, to).busy / 2e6;
      text(stop.children[0], s.node);
      text(stop.children[1], lost ? "lost" : i === slow ? "slowest" : `${s.layers[0]}–${s.layers[1]}`);
      stop.classList.toggle("slow", i === slow && !lost);
      stop.classList.toggle("lost", lost);
      stop.style.flexGrow = Math.max(1, s.layers[1] + 1 - s.layers[0]);
      stop.querySelector("i").style.width = 100 * busy + "%";
    });
    strip.setAttribute("aria-label", `${headline(status)[0]}. ${headline(status)[1]} Show the cluster.`);
    strip.title = headline(status)[0] + ". " + headline(status)[1];
  }

  function showState(status) {
    const state = activity.problem ? "away" : status ? status.health : "loading";
    const busy = activity.isBusy() && activity.rate > 0;
    const words = { ok: busy ? `${digits(activity.rate)} tok/s` : "Ready", loading: "Loading…", recovering: "Being repaired…", failed: "Failed", stopping: "Stopping…", away: "No connection" };
    $("state").dataset.state = state;
    text($("state-text"), words[state] || state);
    $("state").title = activity.problem || "";
  }

  return {
    make,
    headline,
    pace,
    /* After each word of the server. */
    show() {
      const status = activity.status;
      showState(status);
      parts.problem.hidden = !activity.problem;
      text(parts.problem, activity.problem);
      if (!status) return;
      showStrip(status);
      if ($("cluster").hidden) return;
      const [words, more] = headline(status);
      text(parts.headline, words);
      text(parts.sentence, more);
      showFigures(status);
      pipeline.show(status, slowIndex());
      showOthers(status);
      showEvents(status);
    },
    /* Each frame. */
    paint() {
      if ($("cluster").hidden || document.hidden || !activity.status) return;
      if (calm.matches && performance.now() - lastPaint < 1000) return;
      lastPaint = performance.now();
      pipeline.draw();
      timeline.draw(pipeline.cards());
    },
  };
})();
