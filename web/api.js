/* Asking the server: JSON, and answers as they are made. What goes wrong becomes an ApiError with a sentence. */

class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const NO_SERVER = "The server does not answer. It may have been stopped, or the network may be down.";

const api = (() => {
  let key = store.read("key") || "";
  let asking = null; /* the promise of a key that is being typed */

  function headers(more) {
    return key ? { Authorization: "Bearer " + key, ...more } : { ...more };
  }

  async function failure(response) {
    let words = "";
    try {
      words = (await response.json()).error.message;
    } catch {
      /* no words of ours */
    }
    const wait = response.headers.get("Retry-After");
    if (response.status === 429) words = (words || "The server has too much to do") + (wait ? `. Try again in ${wait} s.` : "");
    words = words ? words[0].toUpperCase() + words.slice(1) : `The server answers with status ${response.status}.`;
    return new ApiError(/[.!?]$/.test(words) ? words : words + ".", response.status);
  }

  /* Asks, and where a key is wanted asks for that, then again. */
  async function request(path, options = {}) {
    for (;;) {
      let response;
      const sent = key;
      try {
        response = await fetch(path, { ...options, headers: headers(options.headers), cache: "no-store", credentials: "omit" });
      } catch (e) {
        if (e.name === "AbortError") throw e;
        throw new ApiError(NO_SERVER);
      }
      if (response.ok) return response;
      const error = await failure(response);
      if (response.status !== 401 || options.quiet) throw error;
      if (sent !== key) continue;
      if (!asking) asking = askForKey(key ? error.message : "").finally(() => (asking = null));
      if (!(await asking)) throw error;
    }
  }

  return {
    get hasKey() {
      return key !== "";
    },
    setKey(value) {
      key = value.trim();
      store.write("key", key || null);
    },
    isAsking: () => asking !== null,

    async json(path, options) {
      const response = await request(path, options);
      try {
        return await response.json();
      } catch {
        throw new ApiError("What answers there is no Stagecoach: it does not speak JSON.");
      }
    },

    /* Streams a chat: on.delta(choice), on.comment(words), on.usage(usage). Ends with the stream. */
    async chat(body, on, signal) {
      const response = await request("/v1/chat/completions", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
        signal,
      });
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let rest = "";
      let done = false;
      for (;;) {
        let part;
        try {
          part = await reader.read();
        } catch (e) {
          if (e.name === "AbortError") throw e;
          throw new ApiError("The connection was lost in the middle of the answer.");
        }
        rest += part.done ? decoder.decode() + "\n" : decoder.decode(part.value, { stream: true });
        const lines = rest.split("\n");
        rest = lines.pop();
        for (const raw of lines) done = takeLine(raw.endsWith("\r") ? raw.slice(0, -1) : raw, on) || done;
        if (part.done) break;
      }
      if (!done) throw new ApiError("The answer broke off: the server closed the connection.");
    },
  };

  function takeLine(line, on) {
    if (line.startsWith(":")) on.comment(line.slice(1).trim());
    if (!line.startsWith("data:")) return false;
    const data = line.slice(5).trim();
    if (data === "[DONE]") return true;
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      throw new ApiError("The server sent something that is no JSON.");
    }
    if (event.error) {
      const words = String(event.error.message || "The answer failed");
      throw new ApiError(words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : "."));
    }
    if (Array.isArray(event.choices)) for (const choice of event.choices) on.delta(choice);
    if (event.usage) on.usage(event.usage);
    return false;
  }
})();
