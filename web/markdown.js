/* Markdown to elements, for texts that nobody can vouch for: no HTML is ever parsed, links lead to http, https and mailto only,
 * images become links (nothing is loaded). Each step is bounded, whatever the text: a line is looked at a constant number of
 * times, quotes and lists nest MARKDOWN_DEPTH deep.
 *
 * A text that grows is shown block by block: those that did not change keep their elements (markdownInto). */

const MARKDOWN_DEPTH = 8;
const MARKDOWN_COLUMNS = 64;

/* --- blocks --- */

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>\s?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

const isBlank = (line) => !line.trim();
const indentOf = (line) => line.length - line.trimStart().length;

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || (ITEM.test(line) && !isBlank(line));
}

/* [{kind, lines, …}]: lines are the block's, without what marks them where that is simple. */
function markdownBlocks(source) {
  const lines = source.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n");
  const blocks = [];
  let i = 0;
  const take = (kind, from, more) => blocks.push({ kind, lines: lines.slice(from, i), ...more });

  while (i < lines.length) {
    const from = i;
    const line = lines[i];
    let m;
    if (isBlank(line)) {
      i++;
    } else if ((m = FENCE.exec(line))) {
      const close = new RegExp(`^ {0,3}${m[1][0] === "~" ? "~" : "`"}{${m[1].length},}\\s*$`);
      for (i++; i < lines.length && !close.test(lines[i]); i++);
      blocks.push({ kind: "code", language: m[2], lines: lines.slice(from + 1, i), open: i >= lines.length });
      i++;
    } else if ((m = HEADING.exec(line))) {
      i++;
      take("heading", from, { level: m[1].length, words: m[2] || "" });
    } else if (RULE.test(line)) {
      i++;
      take("rule", from);
    } else if (QUOTE.test(line)) {
      for (i++; i < lines.length && !isBlank(lines[i]) && (QUOTE.test(lines[i]) || !startsBlock(lines[i])); i++);
      take("quote", from);
    } else if (ITEM.test(line)) {
      i = listEnd(lines, i);
      take("list", from);
    } else if (line.includes("|") && i + 1 < lines.length && lines[i + 1].includes("-") && TABLE_RULE.test(lines[i + 1])) {
      for (i += 2; i < lines.length && !isBlank(lines[i]) && lines[i].includes("|"); i++);
      take("table", from);
    } else {
      for (i++; i < lines.length && !isBlank(lines[i]) && !startsBlock(lines[i]); i++);
      take("paragraph", from);
    }
  }
  return blocks;
}

/* Blank lines belong to a list when it goes on behind them: by an item of the same kind, or indented. */
function listEnd(lines, i) {
  const ordered = /\d/.test(ITEM.exec(lines[i])[2]);
  for (i++; i < lines.length; i++) {
    if (isBlank(lines[i])) {
      let next = i;
      while (next < lines.length && isBlank(lines[next])) next++;
      const m = next < lines.length && ITEM.exec(lines[next]);
      if (next >= lines.length || !(indentOf(lines[next]) >= 2 || (m && /\d/.test(m[2]) === ordered))) return i;
      i = next - 1;
    } else if (indentOf(lines[i]) < 2 && !ITEM.test(lines[i]) && startsBlock(lines[i])) {
      return i;
    } else if (RULE.test(lines[i])) {
      return i;
    }
  }
  return i;
}

function renderBlock(block, depth) {
  switch (block.kind) {
    case "code":
      return codeBlock(block.lines.join("\n"), block.language);
    case "heading":
      return el("h" + clamp(block.level + 1, 2, 6), null, markdownInline(block.words));
    case "rule":
      return el("hr");
    case "quote": {
      const inner = block.lines.map((l) => l.replace(QUOTE, "")).join("\n");
      return el("blockquote", null, depth < MARKDOWN_DEPTH ? markdown(inner, depth + 1) : inner);
    }
    case "list":
      return listElement(block.lines, depth);
    case "table":
      return tableElement(block.lines);
    default:
      return el("p", null, markdownInline(block.lines.map((l) => l.trimStart()).join("\n")));
  }
}

function codeBlock(code, language) {
  const name = /^[\w+#.-]{1,20}$/.test(language) ? language : "";
  return el("div.code", null,
    el("div.code-head", null, el("span", null, name || "text"), copyButton(() => code, "Copy the code")),
    el("pre", { tabIndex: 0 }, highlight(code, name)));
}

function listElement(lines, depth) {
  const first = ITEM.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const list = el(ordered ? "ol" : "ul");
  const items = [];
  let content = 0;

  if (ordered && parseInt(first[2]) !== 1) list.start = parseInt(first[2]);
  for (const line of lines) {
    const m = ITEM.exec(line);
    if (m && (!items.length || m[1].length < content)) {
      content = m[1].length + m[2].length + Math.min(m[3].length || 1, 4);
      items.push([m[4]]);
    } else {
      items[items.length - 1].push(line.slice(Math.min(indentOf(line), content)));
    }
  }
  const loose = items.some((item) => item.some((l, i) => isBlank(l) && i < item.length - 1 && !isBlank(item[i + 1])));
  for (const item of items) list.append(listItem(item, depth, loose));
  return list;
}

function listItem(lines, depth, loose) {
  const task = /^\[([ xX])\]\s+/.exec(lines[0]);
  const li = el("li");
  if (task) {
    lines = [lines[0].slice(task[0].length), ...lines.slice(1)];
    li.className = "task";
    li.append(el("span.box" + (task[1] === " " ? "" : ".done"), { role: "img", "aria-label": task[1] === " " ? "to do" : "done" }));
  }
  if (depth >= MARKDOWN_DEPTH) {
    li.append(lines.join("\n"));
    return li;
  }
  for (const block of markdownBlocks(lines.join("\n")))
    if (block.kind === "paragraph" && !loose) li.append(...markdownInline(block.lines.map((l) => l.trimStart()).join("\n")));
    else li.append(renderBlock(block, depth + 1));
  return li;
}

function cellsOf(line) {
  const cells = [];
  let cell = "";
  let code = false;
  line = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  for (let i = 0; i < line.length; i++) {
    if (line[i] === "\\" && line[i + 1] === "|") cell += line[++i];
    else if (line[i] === "|" && !code) {
      cells.push(cell.trim());
      cell = "";
    } else {
      if (line[i] === "`") code = !code;
      cell += line[i];
    }
  }
  cells.push(cell.trim());
  return cells.slice(0, MARKDOWN_COLUMNS);
}

function tableElement(lines) {
  const head = cellsOf(lines[0]);
  const align = cellsOf(lines[1]).map((c) => (c.endsWith(":") ? (c.startsWith(":") ? "center" : "right") : null));
  const row = (cells, tag) => el("tr", null, head.map((_, i) => el(tag + (align[i] ? "." + align[i] : ""), null, markdownInline(cells[i] || ""))));
  return el("div.table", { tabIndex: 0, role: "region", "aria-label": "Table" },
    el("table", null, el("thead", null, row(head, "th")), el("tbody", null, lines.slice(2).map((l) => row(cellsOf(l), "td")))));
}

/* --- inside a line --- */

const SAFE_URL = /^(?:https?:\/\/|mailto:)[^\s<>"]+$/i;
const BARE_URL = /^https?:\/\/[^\s<>"'`]+/i;
const ESCAPABLE = /[\\`*_{}[\]()#+\-.!|~<>"'$%&,/:;=?@^]/;

function link(url, children) {
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
}

/* [text](url "title") at i: {text, url, end}. */
function linkAt(s, i) {
  let depth = 0;
  let j = i;
  for (; j < s.length && j - i < 2000; j++) {
    if (s[j] === "\\") j++;
    else if (s[j] === "[") depth++;
    else if (s[j] === "]" && --depth === 0) break;
  }
  if (s[j] !== "]" || s[j + 1] !== "(") return null;
  const m = /^\(\s*(?:<([^<>\n]*)>|((?:[^\s()]|\([^\s()]*\))*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(s.slice(j + 1, j + 4000));
  return m && { text: s.slice(i + 1, j), url: m[1] !== undefined ? m[1] : m[2], end: j + 1 + m[0].length };
}

function markdownInline(s, depth = 0) {
  const out = [];
  const none = {}; /* marks that are known to have no end from here on */
  let plain = "";
  let i = 0;

  const flush = () => {
    if (plain) out.push(plain);
    plain = "";
  };
  const put = (node, end) => {
    flush();
    out.push(node);
    i = end;
  };
  const inner = (words) => (depth < MARKDOWN_DEPTH ? markdownInline(words, depth + 1) : words);
  const endOf = (mark, from) => {
    if (none[mark]) return -1;
    const at = s.indexOf(mark, from);
    if (at < 0) none[mark] = true;
    return at;
  };

  while (i < s.length) {
    const c = s[i];
    if (c === "\\" && i + 1 < s.length && ESCAPABLE.test(s[i + 1])) {
      plain += s[i + 1];
      i += 2;
    } else if (c === "`") {
      const run = /^`+/.exec(s.slice(i, i + 32))[0];
      const end = endOf(run, i + run.length);
      if (end > 0) {
        put(el("code", null, s.slice(i + run.length, end).replace(/^ (.*) $/, "$1")), end + run.length);
      } else {
        plain += run;
        i += run.length;
      }
    } else if (c === "*" || c === "_" || (c === "~" && s[i + 1] === "~")) {
      const mark = c === "~" ? "~~" : s[i + 1] === c ? c + c : c;
      const end = emphasisEnd(s, i, mark, endOf);
      if (end > 0) {
        put(el(mark === "~~" ? "del" : mark.length === 2 ? "strong" : "em", null, inner(s.slice(i + mark.length, end))), end + mark.length);
      } else {
        plain += mark;
        i += mark.length;
      }
    } else if (c === "[" || (c === "!" && s[i + 1] === "[")) {
      const l = linkAt(s, c === "!" ? i + 1 : i);
      if (l && SAFE_URL.test(l.url)) {
        put(link(l.url, c === "!" ? l.text || "image" : inner(l.text)), l.end);
      } else {
        plain += c;
        i++;
      }
    } else if (c === "<" && /^<(?:https?:\/\/|mailto:)[^\s<>]+>/i.test(s.slice(i, i + 2000))) {
      const end = s.indexOf(">", i);
      const url = s.slice(i + 1, end);
      if (SAFE_URL.test(url)) put(link(url, [url]), end + 1);
      else {
        plain += c;
        i++;
      }
    } else if ((c === "h" || c === "H") && !/\w$/.test(plain) && BARE_URL.test(s.slice(i, i + 2000))) {
      const url = BARE_URL.exec(s.slice(i, i + 2000))[0].replace(/[).,;:!?\]*_~]+$/, "");
      put(link(url, [url]), i + url.length);
    } else if (c === "\n") {
      const hard = / {2,}$/.test(plain);
      plain = plain.trimEnd();
      if (hard) put(el("br"), i + 1);
      else {
        plain += "\n";
        i++;
      }
    } else {
      plain += c;
      i++;
    }
  }
  flush();
  return out;
}

/* Where the emphasis that begins at i ends; -1: it is no emphasis. */
function emphasisEnd(s, i, mark, endOf) {
  const from = i + mark.length;
  if (from >= s.length || /\s/.test(s[from])) return -1;
  if (mark[0] === "_" && i > 0 && /\w/.test(s[i - 1])) return -1;
  for (let end = endOf(mark, from + 1), tries = 0; end > 0 && tries < 16; end = endOf(mark, end + 1), tries++) {
    if (/\s/.test(s[end - 1]) || s[end - 1] === "\\") continue;
    if (mark[0] === "_" && /\w/.test(s[end + mark.length] || "")) continue;
    if (mark.length === 1 && s[end + 1] === mark) {
      end++; /* the end of something stronger inside */
      continue;
    }
    return end;
  }
  return -1;
}

/* --- whole texts --- */

function markdown(source, depth = 0) {
  return markdownBlocks(source).map((block) => renderBlock(block, depth));
}

/* Shows source in an element that may show the beginning of it already. */
function markdownInto(node, source) {
  const blocks = markdownBlocks(source);
  const shown = node.shownBlocks || [];
  blocks.forEach((block, i) => {
    const raw = block.kind + "\n" + (block.language || "") + "\n" + block.lines.join("\n");
    if (shown[i] === raw) return;
    const element = renderBlock(block, 0);
    if (node.children[i]) node.children[i].replaceWith(element);
    else node.append(element);
    shown[i] = raw;
  });
  while (node.children.length > blocks.length) node.lastChild.remove();
  node.shownBlocks = shown.slice(0, blocks.length);
}
