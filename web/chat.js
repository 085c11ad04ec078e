/* The conversation: asking, showing what comes, stopping, asking again, editing. */

const chat = (() => {
  const CONTEXT_CHARACTERS = 4 << 20;
  let current = null; /* {id, title, at, messages}; null: a new one, not kept before it holds something */
  let views = [];
  let running = null; /* {controller, view, …} */
  let editing = -1;
  let atEnd = true;
  let model = "";

  const scroller = () => $("scroll");

  /* --- showing --- */

  function follow() {
    if (atEnd) scroller().scrollTop = scroller().scrollHeight;
    $("to-end").hidden = atEnd;
  }

  function addView(i) {
    const view = new MessageView(i, current.messages[i], { retry, edit });
    views.push(view);
    $("log").append(view.root);
    return view;
  }

  function show() {
    views = [];
    $("log").replaceChildren();
    if (current) current.messages.forEach((_, i) => addView(i));
    $("empty").hidden = views.length > 0;
    document.body.classList.toggle("no-chat", views.length === 0);
    atEnd = true;
    follow();
    sidebar.show();
  }

  function showButton() {
    const b = $("send");
    b.replaceChildren(icon(running ? "stop" : "send"));
    b.classList.toggle("stop", running !== null);
    b.setAttribute("aria-label", running ? "Stop the answer" : "Send");
    b.title = running ? "Stop (Esc)" : "Send (Enter)";
  }

  function fit() {
    const input = $("input");
    input.style.height = "auto";
    input.style.height = Math.min(input.scrollHeight, innerHeight * 0.4) + "px";
  }

  /* --- asking --- */

  function body() {
    const messages = current.messages.slice(0, -1).filter((m) => m.content || m.role === "user").map((m) => ({ role: m.role, content: m.role === "assistant" ? splitThoughts(m.content)[1] : m.content }));
    const out = { model, messages };
    if (settings.values.system.trim()) messages.unshift({ role: "system", content: settings.values.system });
    for (const [name, s] of Object.entries(SETTINGS)) if (s.kind === "number" && settings.values[name] !== null) out[name] = settings.values[name];
    return out;
  }

  function take(run, choice) {
    const d = choice.delta || {};
    const m = run.message;
    const thought = d.reasoning_content || d.reasoning;
    if (typeof thought === "string" && thought) m.reasoning = (m.reasoning || "") + thought;
    if (typeof d.content === "string") m.content += d.content;
    if (thought || d.content) {
      const now = performance.now();
      if (!run.first) run.first = now;
      run.last = now;
      run.pieces++;
      run.waiting = "";
      m.stats.first_ms = run.first - run.began;
      m.stats.tokens = run.pieces;
      m.stats.per_s = run.pieces > 1 ? ((run.pieces - 1) * 1000) / Math.max(1, run.last - run.first) : undefined;
    }
    if (choice.finish_reason) m.finish = choice.finish_reason;
    if (m.content.length > CONTEXT_CHARACTERS) run.controller.abort();
  }

  /* The exact number takes the place of the count of pieces. */
  function takeUsage(run, usage) {
    const s = run.message.stats;
    if (!(usage.completion_tokens > 0)) return;
    s.tokens = usage.completion_tokens;
    s.per_s = s.tokens > 1 && run.first ? ((s.tokens - 1) * 1000) / Math.max(1, run.last - run.first) : undefined;
  }

  function showRun(run) {
    if (run.scheduled) return;
    run.scheduled = true;
    requestAnimationFrame(() => {
      run.scheduled = false;
      if (running !== run) return;
      run.view.show(true, run.waiting);
      follow();
    });
  }

  async function answer() {
    const message = { role: "assistant", content: "", stats: {} };
    current.messages.push(message);
    const run = { controller: new AbortController(), message, began: performance.now(), first: 0, last: 0, pieces: 0, waiting: "", chat: current };
    running = run;
    run.view = addView(current.messages.length - 1);
    run.view.show(true);
    showButton();
    atEnd = true;
    follow();
    say("Asked");
    activity.poke();
    try {
      await api.chat(body(), {
        delta: (c) => (take(run, c), showRun(run)),
        usage: (u) => takeUsage(run, u),
        comment(words) {
          run.waiting = words && words !== "waiting" ? words[0].toUpperCase() + words.slice(1) + "…" : run.pieces ? "Waiting for the cluster…" : "Reading, or waiting for its turn…";
          showRun(run);
        },
      }, run.controller.signal);
    } catch (e) {
      if (e.name === "AbortError") message.finish = "stopped";
      else message.error = e instanceof ApiError ? e.message : "The page stumbled over this answer: " + e.message;
    }
    end(run);
  }

  function end(run) {
    if (running === run) running = null;
    run.view.show(false);
    run.chat.at = Date.now();
    if (store.has(run.chat.id)) store.save(run.chat); /* else it was deleted meanwhile */
    showButton();
    follow();
    sidebar.show();
    say(run.message.error ? "The answer failed. " + run.message.error : run.message.finish === "stopped" ? "Stopped" : "The answer is complete");
  }

  function stop() {
    if (running) running.controller.abort();
  }

  function send() {
    const words = $("input").value.trim();
    if (!words || running) return;
    if (!current) current = { id: store.newId(), title: "", at: Date.now(), messages: [] };
    if (editing >= 0) cut(editing);
    endEdit();
    $("input").value = "";
    fit();
    current.messages.push({ role: "user", content: words });
    if (!current.title) current.title = words.replace(/\s+/g, " ").slice(0, STORE.TITLE);
    store.write("current", current.id);
    addView(current.messages.length - 1);
    $("empty").hidden = true;
    document.body.classList.remove("no-chat");
    store.save(current);
    sidebar.show();
    answer();
  }

  /* Forgets the messages from i on. */
  function cut(i) {
    current.messages.length = i;
    for (const view of views.splice(i)) view.root.remove();
  }

  function retry(i) {
    if (running) return;
    cut(i);
    answer();
  }

  function edit(i) {
    if (running) return;
    editing = i;
    $("editing").hidden = false;
    $("input").value = current.messages[i].content;
    fit();
    $("input").focus();
    $("input").setSelectionRange($("input").value.length, $("input").value.length);
    views.forEach((v, k) => v.root.classList.toggle("outdated", k >= i));
  }

  function endEdit() {
    if (editing < 0) return;
    editing = -1;
    $("editing").hidden = true;
    views.forEach((v) => v.root.classList.remove("outdated"));
  }

  function lastOfUser() {
    for (let i = views.length - 1; i >= 0; i--) if (current.messages[i].role === "user") return i;
    return -1;
  }

  function onKey(e) {
    const input = $("input");
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing && e.keyCode !== 229) {
      e.preventDefault();
      send();
    } else if (e.key === "ArrowUp" && !input.value && lastOfUser() >= 0) {
      e.preventDefault();
      edit(lastOfUser());
    }
  }

  /* Before anything was asked: what there is, in a sentence, and how to begin. */
  const IDEAS = ["Explain gravity to a child", "Write a haiku about rivers", "Give me three ideas for dinner as a table", "Write a shell loop that counts to ten"];

  function makeEmpty() {
    $("empty").replaceChildren(el("div.welcome", null, el("h1", { id: "welcome" }, "Stagecoach"), el("p.lead", { id: "welcome-more" }),
      el("ul.ideas", null, IDEAS.map((words) => el("li", null, el("button", { type: "button", onclick: () => {
        $("input").value = words;
        fit();
        $("input").focus();
        send();
      } }, words))))));
  }

  return {
    id: () => current && current.id,
    stop, edit,
    isRunning: () => running !== null,
    setModel: (name) => (model = name),
    cancelEdit() {
      if (editing < 0) return false;
      endEdit();
      $("input").value = "";
      fit();
      return true;
    },
    open(id) {
      stop();
      running = null;
      endEdit();
      $("input").value = "";
      fit();
      current = id ? store.load(id) : null;
      if (id && !current) toast("This chat is not there any more");
      store.write("current", id);
      show();
      showButton();
    },
    showWelcome(status) {
      const [words, more] = clusterView.headline(status);
      text($("welcome"), words);
      text($("welcome-more"), more);
    },
    make() {
      makeEmpty();
      $("composer").addEventListener("submit", (e) => {
        e.preventDefault();
        if (running) stop();
        else send();
      });
      $("input").addEventListener("keydown", onKey);
      $("input").addEventListener("input", fit);
      $("cancel-edit").addEventListener("click", () => {
        this.cancelEdit();
        $("input").focus();
      });
      scroller().addEventListener("scroll", () => {
        const s = scroller();
        atEnd = s.scrollHeight - s.scrollTop - s.clientHeight < 60;
        $("to-end").hidden = atEnd;
      }, { passive: true });
      $("to-end").prepend(icon("down"));
      $("to-end").addEventListener("click", () => {
        atEnd = true;
        follow();
      });
      showButton();
    },
  };
})();
