/* What the page's other parts are made of: elements, numbers as people read them, icons. Text never becomes HTML: elements are
 * made one by one, and what comes from a model, a server or a file is only ever their text. */
"use strict";

const $ = (id) => document.getElementById(id);

/* el("p.fine", {title: "x", onclick: f}, "text", child, …) */
function el(what, props, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  set(node, props);
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

function set(node, props) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-") && name !== "list") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/* Sets a text only where it changed: no work for the browser, nothing repeated for a screen reader. */
function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

const ICONS = {
  plus: "M8 3v10M3 8h10",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  close: "M4 4l8 8M12 4l-8 8",
  send: "M8 13V3.5M3.8 7.5L8 3.2l4.2 4.3",
  stop: "M4.5 4.5h7v7h-7z",
  copy: "M5.5 5.5h7v7h-7zM10 5.5v-2H3.5V10h2",
  check: "M3.5 8.5l3 3 6-7",
  retry: "M12.5 5.5A5 5 0 1 0 13 9M12.8 2.8v3h-3",
  edit: "M3 13l.6-2.8 7-7 2.2 2.2-7 7L3 13z",
  trash: "M3.5 4.5h9M6.5 4.3V3h3v1.3M4.8 4.8l.5 8.2h5.4l.5-8.2",
  sliders: "M2.5 5h7M12 5h1.5M2.5 11H4M6.5 11h7M9.5 3.5v3M6.5 9.5v3",
  down: "M8 3v9.5M3.8 8.5L8 12.8l4.2-4.3",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
};

function icon(name) {
  return svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, class: "icon-" + name, "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

function iconButton(name, label, onclick, className = "icon") {
  return el("button." + className, { type: "button", title: label, "aria-label": label, onclick }, icon(name));
}

/* --- numbers --- */

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return (i && n < 10 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
}

function digits(n) {
  return n >= 100 ? Math.round(n).toString() : n >= 10 ? n.toFixed(1).replace(/\.0$/, "") : n.toFixed(n >= 1 ? 1 : 2);
}

function duration(ms) {
  if (ms < 0.995) return Math.round(ms * 1000) + " µs";
  if (ms < 995) return digits(ms) + " ms";
  if (ms < 119500) return digits(ms / 1000) + " s";
  return ms < 7.2e6 ? Math.round(ms / 60000) + " min" : Math.round(ms / 3.6e6) + " h";
}

const percent = (x) => Math.round(100 * x) + " %";
const count = (n, one, many) => `${n} ${n === 1 ? one : many || one + "s"}`;
const listed = (items) => (items.length < 2 ? items.join("") : items.slice(0, -1).join(", ") + " and " + items[items.length - 1]);
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

/* --- telling --- */

/* To a screen reader. */
function say(words) {
  $("said").textContent = words;
}

let toastTimer = 0;
function toast(words) {
  const t = $("toast");
  t.textContent = words;
  t.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (t.hidden = true), 4000);
}

async function copyText(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    /* Not a secure context (http:// to another machine): the old way. */
    const area = el("textarea.unseen", { value: words });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function copyButton(get, label) {
  const b = iconButton("copy", label, async () => {
    const done = await copyText(get());
    b.replaceChildren(icon(done ? "check" : "close"));
    say(done ? "Copied" : "The browser does not let this page copy");
    setTimeout(() => b.replaceChildren(icon("copy")), 1500);
  });
  return b;
}

function saveFile(name, contents) {
  const url = URL.createObjectURL(new Blob([contents], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
