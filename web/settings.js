/* The two dialogs: settings, and the key where the server wants one. */

function settingField(name) {
  const s = SETTINGS[name];
  const value = settings.values[name];
  const id = "set-" + name;
  const input = s.kind === "text"
    ? el("textarea", { id, rows: 4, value, maxlength: s.most, "aria-describedby": id + "-hint" })
    : el("input", { id, type: "number", inputMode: "decimal", min: s.min, max: s.max, step: s.step, value: value === null ? "" : String(value), placeholder: "the model's own", "aria-describedby": id + "-hint" });
  input.addEventListener("change", () => {
    if (s.kind === "text") settings.values[name] = input.value;
    else if (input.value === "" && !input.validity.badInput) settings.values[name] = null;
    else if (input.validity.valid) settings.values[name] = Number(input.value);
    else return input.reportValidity();
    settings.save();
  });
  return el("div.field." + s.kind, null, el("label", { htmlFor: id }, s.label), input, el("p.fine", { id: id + "-hint" }, s.hint));
}

function themeField() {
  const names = [["auto", "Like the system"], ["light", "Light"], ["dark", "Dark"]];
  return el("fieldset.segments", null, el("legend", null, "Colours"),
    names.map(([value, label]) => el("label", null,
      el("input", { type: "radio", name: "theme", checked: settings.theme === value, onchange: () => settings.setTheme(value) }), el("span", null, label))));
}

function keyField() {
  const input = el("input", { id: "set-key", type: "password", autocomplete: "off", placeholder: api.hasKey ? "kept in this browser" : "none" });
  input.addEventListener("change", () => {
    api.setKey(input.value);
    activity.poke();
  });
  return el("div.field.text", null, el("label", { htmlFor: "set-key" }, "API key"), input,
    el("p.fine", null, "Only where the server wants one. Kept in this browser, sent to this server alone."));
}

function importButton() {
  const input = el("input.unseen", { type: "file", accept: "application/json,.json", tabIndex: -1, "aria-hidden": "true" });
  input.addEventListener("change", async () => {
    const file = input.files[0];
    input.value = "";
    if (!file) return;
    try {
      if (file.size > STORE.FILE) throw new Error(`This file has ${bytes(file.size)}; at most ${bytes(STORE.FILE)} are read.`);
      const n = store.importAll(await file.text());
      toast(`${count(n, "chat")} imported`);
      sidebar.show();
    } catch (e) {
      toast(e.message);
    }
  });
  return el("span", null, el("button", { type: "button", onclick: () => input.click() }, "Import chats…"), input);
}

function clearButton() {
  const b = el("button.danger", { type: "button" }, "Delete all chats");
  b.addEventListener("click", () => {
    if (b.dataset.sure) {
      store.clear();
      chat.open(null);
      sidebar.show();
      b.textContent = "Deleted";
      delete b.dataset.sure;
    } else {
      b.dataset.sure = "yes";
      b.textContent = "Really delete all?";
      setTimeout(() => {
        delete b.dataset.sure;
        b.textContent = "Delete all chats";
      }, 4000);
    }
  });
  return b;
}

function openSettings() {
  const dialog = $("settings");
  const names = Object.keys(SETTINGS);
  dialog.replaceChildren(el("form", { method: "dialog" },
    el("header", null, el("h2", { id: "settings-title" }, "Settings"), iconButton("close", "Close", () => dialog.close())),
    el("div.fields", null, settingField(names[0]), el("div.grid", null, names.slice(1).map(settingField)), themeField(), keyField()),
    el("footer", null,
      el("button", { type: "button", onclick: () => saveFile("stagecoach-chats.json", store.exportAll()) }, "Export chats"), importButton(), clearButton(),
      el("span.grow"), el("button.main", { type: "button", onclick: () => dialog.close() }, "Done"))));
  dialog.showModal();
}

/* Resolves to whether a key was given. */
function askForKey(why) {
  const dialog = $("key");
  const input = el("input", { id: "key-input", type: "password", autocomplete: "off", required: true, "aria-describedby": "key-why" });
  return new Promise((resolve) => {
    let given = false;
    const form = el("form", null,
      el("header", null, el("h2", { id: "key-title" }, "An API key, please")),
      el("p", { id: "key-why" }, why || "This server answers only to who shows a key. Whoever started it knows one: a line of the file given with --api-key-file."),
      el("div.field.text", null, el("label", { htmlFor: "key-input" }, "Key"), input, el("p.fine", null, "Kept in this browser, sent to this server alone.")),
      el("footer", null, el("span.grow"), el("button", { type: "button", onclick: () => dialog.close() }, "Not now"), el("button.main", { type: "submit" }, "Go on")));
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      api.setKey(input.value);
      given = api.hasKey;
      dialog.close();
    });
    dialog.replaceChildren(form);
    dialog.addEventListener("close", () => resolve(given), { once: true });
    if (!dialog.open) dialog.showModal();
    input.focus();
  });
}
