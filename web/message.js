/* One message on the page. An answer grows; its thoughts, where the model shows them, are folded. */

const THINK_OPEN = "<think>", THINK_CLOSE = "</think>";

/* Models whose server does not split their thoughts off write them first, between marks: [thoughts, answer]. */
function splitThoughts(content) {
  const s = content.trimStart();
  if (!s.startsWith(THINK_OPEN.slice(0, Math.max(1, Math.min(s.length, THINK_OPEN.length)))) || s.length < THINK_OPEN.length)
    return ["", s.length && THINK_OPEN.startsWith(s) ? "" : content];
  const end = s.indexOf(THINK_CLOSE);
  return end < 0 ? [s.slice(THINK_OPEN.length), ""] : [s.slice(THINK_OPEN.length, end), s.slice(end + THINK_CLOSE.length).trimStart()];
}

const FINISHES = {
  length: "Stopped at the longest answer allowed, or at the end of the context.",
  stopped: "You stopped it here.",
  content_filter: "Stopped by a filter.",
};

function statsWords(stats) {
  const words = [];
  if (stats.per_s) words.push(digits(stats.per_s) + " tok/s");
  if (stats.first_ms !== undefined) words.push("first token after " + duration(stats.first_ms));
  if (stats.tokens) words.push(count(stats.tokens, "token"));
  return words.join(" · ");
}

/* on: {retry, edit} take the message's index. */
class MessageView {
  constructor(index, message, on) {
    this.index = index;
    this.message = message;
    this.body = el("div.body");
    this.note = el("p.note", { hidden: true });
    this.foot = el("div.foot");
    if (message.role === "user") this.makeUser(on);
    else this.makeAnswer(on);
  }

  makeUser(on) {
    this.body.textContent = this.message.content;
    this.foot.append(iconButton("edit", "Edit and ask again", () => on.edit(this.index)), copyButton(() => this.message.content, "Copy the message"));
    this.root = el("article.message.user", { "aria-label": "You" }, this.body, this.foot);
  }

  makeAnswer(on) {
    this.thoughts = el("details.thoughts", { hidden: true }, el("summary"), el("div.body"));
    this.stats = el("span.stats");
    this.error = el("div.error", { role: "alert", hidden: true });
    this.actions = el("span.actions", null, copyButton(() => splitThoughts(this.message.content)[1], "Copy the answer"), iconButton("retry", "Ask again", () => on.retry(this.index)));
    this.foot.append(this.actions, this.stats);
    this.retry = () => on.retry(this.index);
    this.root = el("article.message.answer", { "aria-label": "Answer" }, this.thoughts, this.body, this.note, this.error, this.foot);
    this.show(false);
  }

  /* busy: it still grows. waiting: what is being waited for, words of the server. */
  show(busy, waiting = "") {
    const m = this.message;
    const [inline, answer] = splitThoughts(m.content);
    const thoughts = m.reasoning || inline;

    this.root.classList.toggle("busy", busy);
    this.root.setAttribute("aria-busy", String(busy));
    markdownInto(this.body, answer);
    this.thoughts.hidden = !thoughts.trim();
    if (thoughts.trim()) {
      text(this.thoughts.firstChild, busy && !answer ? "Thinking…" : "Thoughts");
      markdownInto(this.thoughts.lastChild, thoughts.trim());
    }
    const begun = answer || thoughts;
    const note = waiting || (busy && !begun ? "Reading…" : !busy && FINISHES[m.finish] ? FINISHES[m.finish] : !busy && !begun && !m.error ? "The model had nothing to say." : "");
    this.note.hidden = !note;
    this.note.classList.toggle("waiting", busy);
    text(this.note, note);
    this.error.hidden = !m.error;
    if (m.error && this.shownError !== m.error)
      this.error.replaceChildren(el("p", null, m.error), el("button", { type: "button", onclick: this.retry }, icon("retry"), "Try again"));
    this.shownError = m.error;
    this.actions.hidden = busy || !begun;
    text(this.stats, m.stats ? statsWords(m.stats) : "");
  }
}
