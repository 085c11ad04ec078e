/* What the browser keeps: chats, settings, the key. All of it bounded; what another program wrote there is checked as if it came
 * from a stranger. Where the browser keeps nothing (a private window may refuse) everything works until the page is closed. */

const STORE = {
  CHATS: 300, /* the oldest give way */
  MESSAGES: 2000,
  TEXT: 1 << 20,
  TITLE: 80,
  FILE: 32 << 20,
};

const store = (() => {
  const memory = new Map();

  function read(name) {
    try {
      return localStorage.getItem("stagecoach." + name);
    } catch {
      return memory.has(name) ? memory.get(name) : null;
    }
  }

  /* false: there is no room. */
  function write(name, value) {
    try {
      if (value === null) localStorage.removeItem("stagecoach." + name);
      else localStorage.setItem("stagecoach." + name, value);
      return true;
    } catch (e) {
      if (e && e.name === "QuotaExceededError") return false;
      memory.set(name, value);
      return true;
    }
  }

  function readJson(name, otherwise) {
    try {
      const value = JSON.parse(read(name));
      return value === null ? otherwise : value;
    } catch {
      return otherwise;
    }
  }

  const shortText = (s, most) => (typeof s === "string" ? s.slice(0, most) : "");
  const number = (x) => (typeof x === "number" && isFinite(x) ? x : undefined);

  function checkMessage(m) {
    if (!m || (m.role !== "user" && m.role !== "assistant") || typeof m.content !== "string") return null;
    const out = { role: m.role, content: m.content.slice(0, STORE.TEXT) };
    if (typeof m.reasoning === "string" && m.reasoning) out.reasoning = m.reasoning.slice(0, STORE.TEXT);
    if (typeof m.error === "string" && m.error) out.error = m.error.slice(0, 2000);
    if (typeof m.finish === "string") out.finish = m.finish.slice(0, 40);
    if (m.stats && typeof m.stats === "object")
      out.stats = { tokens: number(m.stats.tokens), first_ms: number(m.stats.first_ms), per_s: number(m.stats.per_s) };
    return out;
  }

  /* A chat as it may be used, or null. */
  function checkChat(c) {
    if (!c || typeof c.id !== "string" || !/^[\w-]{1,64}$/.test(c.id) || !Array.isArray(c.messages)) return null;
    return {
      id: c.id,
      title: shortText(c.title, STORE.TITLE) || "Chat",
      at: number(c.at) || Date.now(),
      messages: c.messages.slice(0, STORE.MESSAGES).map(checkMessage).filter(Boolean),
    };
  }

  const isIndexed = (c) => c && typeof c.id === "string" && /^[\w-]{1,64}$/.test(c.id) && typeof c.title === "string" && isFinite(c.at);
  const stored = readJson("chats", []);
  let index = (Array.isArray(stored) ? stored : []).filter(isIndexed).slice(0, STORE.CHATS);

  function saveIndex() {
    write("chats", JSON.stringify(index));
  }

  function remove(id) {
    index = index.filter((c) => c.id !== id);
    write("chat." + id, null);
    saveIndex();
  }

  /* Makes room by forgetting the oldest; says how many were forgotten. */
  function save(chat) {
    let forgotten = 0;
    const oldest = () => index.filter((c) => c.id !== chat.id).sort((a, b) => a.at - b.at)[0];
    const known = index.find((c) => c.id === chat.id);
    if (known) Object.assign(known, { title: chat.title, at: chat.at });
    else index.push({ id: chat.id, title: chat.title, at: chat.at });
    while (index.length > STORE.CHATS) {
      remove(oldest().id);
      forgotten++;
    }
    while (!write("chat." + chat.id, JSON.stringify(chat)) && oldest()) {
      remove(oldest().id);
      forgotten++;
    }
    saveIndex();
    if (forgotten) toast(`No room in this browser: ${count(forgotten, "old chat was", "old chats were")} forgotten`);
  }

  return {
    read, write, readJson, remove, save,
    has: (id) => index.some((c) => c.id === id),
    list: () => [...index].sort((a, b) => b.at - a.at),
    load: (id) => checkChat(readJson("chat." + id, null)),
    newId: () => Date.now().toString(36) + "-" + Math.random().toString(36).slice(2, 8),

    exportAll() {
      const chats = index.map((c) => checkChat(readJson("chat." + c.id, null))).filter(Boolean);
      return JSON.stringify({ format: "stagecoach-chats", version: 1, chats }, null, 1);
    },
    /* How many came; throws a sentence. */
    importAll(contents) {
      let file;
      try {
        file = JSON.parse(contents);
      } catch {
        throw new Error("This file is not JSON.");
      }
      if (!file || file.format !== "stagecoach-chats" || !Array.isArray(file.chats))
        throw new Error("This file holds no chats of Stagecoach: its \"format\" should be \"stagecoach-chats\".");
      const chats = file.chats.slice(0, STORE.CHATS).map(checkChat).filter(Boolean);
      chats.forEach((c) => this.save(c));
      return chats.length;
    },
    clear() {
      for (const c of [...index]) remove(c.id);
    },
  };
})();

/* --- settings --- */

/* null: the server's own. */
const SETTINGS = {
  system: { kind: "text", label: "System prompt", hint: "Says who the model is to be. Stands before every chat.", most: 65536 },
  temperature: { kind: "number", label: "Temperature", hint: "0 always takes the likeliest token.", min: 0, max: 2, step: 0.05 },
  top_p: { kind: "number", label: "Top p", hint: "Chooses among the tokens that together make up this share.", min: 0.01, max: 1, step: 0.01 },
  top_k: { kind: "number", label: "Top k", hint: "Chooses among so many tokens; 0: all.", min: 0, max: 1000, step: 1 },
  min_p: { kind: "number", label: "Min p", hint: "Leaves out what is less likely than this share of the likeliest.", min: 0, max: 1, step: 0.01 },
  repetition_penalty: { kind: "number", label: "Repetition penalty", hint: "Above 1 makes what was said less likely.", min: 0.5, max: 2, step: 0.01 },
  max_tokens: { kind: "number", label: "Longest answer", hint: "In tokens. Empty: until it ends.", min: 1, max: 1000000, step: 1 },
  seed: { kind: "number", label: "Seed", hint: "The same seed gives the same answer.", min: 0, max: 2147483647, step: 1 },
};

const settings = (() => {
  const from = store.readJson("settings", {});
  const values = {};
  for (const [name, s] of Object.entries(SETTINGS)) {
    const v = from && typeof from === "object" ? from[name] : null;
    values[name] = s.kind === "text" ? (typeof v === "string" ? v.slice(0, s.most) : "") : typeof v === "number" && v >= s.min && v <= s.max ? v : null;
  }
  const theme = store.read("theme");
  return {
    values,
    theme: theme === "light" || theme === "dark" ? theme : "auto",
    save() {
      store.write("settings", JSON.stringify(values));
    },
    setTheme(theme) {
      this.theme = theme;
      store.write("theme", theme === "auto" ? null : theme);
      applyTheme();
    },
  };
})();

function applyTheme() {
  if (settings.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = settings.theme;
}
applyTheme();
