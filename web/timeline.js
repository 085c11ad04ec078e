/* The last seconds of each stage as a lane: for every column of pixels the share of that time in which it computed (decoding, or
 * reading prompts), in which work was on its way to it, in which it waited for others. Long steps become blocks, short ones
 * heights. */

const timeline = (() => {
  const WINDOWS = [["10 s", 10e6], ["1 s", 1e6], ["0.1 s", 1e5]];
  let windowUs = WINDOWS[0][1];
  let colours = null;
  let drawn = 0;

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(["busy", "prompt", "wire", "wait", "lane"].map((n) => [n, style.getPropertyValue("--" + n).trim()]));
  }
  const forget = () => (colours = null);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", forget);
  new MutationObserver(forget).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });

  function add(columns, from, perUs, a, b) {
    let x = (a - from) * perUs;
    const end = Math.min(columns.length, (b - from) * perUs);
    for (x = Math.max(0, x); x < end; ) {
      const next = Math.min(end, Math.floor(x) + 1);
      columns[Math.floor(x)] += next - x;
      x = next;
    }
  }

  function lane(canvas, i, from, to) {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const perUs = width / (to - from);
    const kinds = { busy: new Float32Array(width), prompt: new Float32Array(width), wire: new Float32Array(width), any: new Float32Array(width) };
    let anyEnd = 0;
    for (let k = activity.firstAt(from); k < activity.steps.length; k++) {
      const s = activity.steps[k];
      const end = s.landed || s.lost || to;
      if (s.sent > to) break;
      if (end < from) continue;
      if (end > anyEnd) { /* steps overlap: each moment counts once */
        add(kinds.any, from, perUs, Math.max(s.sent, anyEnd), end);
        anyEnd = end;
      }
      const at = s.at[i], left = i ? s.at[i - 1] && s.at[i - 1].ended : s.sent;
      if (left) add(kinds.wire, from, perUs, left, at ? at.received : Math.min(end, to));
      if (at) add(s.rows > s.wanted ? kinds.prompt : kinds.busy, from, perUs, at.started, at.ended);
    }
    paint(canvas.getContext("2d"), width, height, kinds);
  }

  function paint(c, width, height, kinds) {
    c.clearRect(0, 0, width, height);
    c.fillStyle = colours.lane;
    c.fillRect(0, 0, width, height);
    for (let x = 0; x < width; x++) {
      const prompt = Math.min(1, kinds.prompt[x]), busy = Math.min(1 - prompt, kinds.busy[x]);
      const wire = Math.min(1 - prompt - busy, kinds.wire[x]);
      const wait = Math.max(0, Math.min(1, kinds.any[x]) - prompt - busy - wire);
      let y = height;
      for (const [share, colour] of [[prompt, colours.prompt], [busy, colours.busy], [wire, colours.wire], [wait, colours.wait]])
        if (share > 0.004) {
          c.fillStyle = colour;
          c.fillRect(x, y - share * height, 1, share * height);
          y -= share * height;
        }
    }
  }

  return {
    /* Lanes move as fast as their columns do, and no faster than an eye. */
    draw(cards) {
      const every = calm.matches ? 1000 : windowUs > 2e6 ? 60 : 33;
      if (performance.now() - drawn < every) return;
      drawn = performance.now();
      if (!colours) readColours();
      const to = windowUs > 2e6 || play.speed === 1 || !play.playing ? activity.serverNow() - PLAY.LAG_US : Math.max(play.at, windowUs);
      cards.forEach((card, i) => lane(card.lane, i, to - windowUs, to));
    },
    controls() {
      return el("fieldset.segments", null, el("legend.unseen", null, "How much time the lanes show"),
        WINDOWS.map(([label, us], i) => el("label", null,
          el("input", { type: "radio", name: "window", checked: i === 0, onchange: () => { windowUs = us; drawn = 0; } }), el("span", null, label))));
    },
    legend() {
      return el("ul.legend", { "aria-label": "Colours" },
        [["busy", "decodes"], ["prompt", "reads a prompt"], ["wire", "work on its way"], ["wait", "waits for another"]].map(([c, words]) => el("li." + c, null, words)));
    },
  };
})();
