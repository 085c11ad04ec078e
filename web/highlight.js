/* Code with a little colour: comments, strings, numbers, words of the language. No grammar, a few patterns; a long text is shown
 * as it is. Gives elements. */

const HIGHLIGHT_MOST = 60000;

const LANGUAGES = (() => {
  const words = {
    c: "auto bool break case char class const constexpr continue default delete do double else enum extern false final float for goto if inline int long namespace new nullptr NULL operator private protected public return short signed sizeof static struct switch template this throw true try typedef typename union unsigned using virtual void volatile while",
    js: "async await break case catch class const continue default delete do else enum export extends false finally for from function if implements import in instanceof interface let new null of private public return static super switch this throw true try type typeof undefined var void while yield",
    python: "and as assert async await break class continue def del elif else except False finally for from global if import in is lambda None nonlocal not or pass raise return self True try while with yield match case",
    sh: "case do done elif else esac export fi for function if in local return then until while set unset echo cd sudo exit",
    rust: "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while i32 i64 u8 u32 u64 usize f32 f64 str String Vec Option Result",
    go: "break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select struct switch type var true false nil string int error bool byte",
    sql: "select from where join left right inner outer on group by order having insert into values update set delete create table index drop alter and or not null primary key as distinct limit union case when then else end in like between exists count sum avg min max",
    java: "abstract boolean break byte case catch char class const continue default do double else enum extends final finally float for if implements import instanceof int interface long new null package private protected public return short static super switch synchronized this throw throws true false try void volatile while var val fun override when object data string foreach namespace using get set",
    json: "true false null",
    yaml: "true false null yes no",
  };
  const alias = {
    c: "c h cc cpp cxx c++ hpp cuda objc", js: "js javascript ts typescript jsx tsx mjs node", python: "python py python3",
    sh: "sh bash zsh shell console", rust: "rust rs", go: "go golang", sql: "sql sqlite postgresql mysql",
    java: "java kotlin kt csharp cs c# scala swift php ruby rb lua", json: "json jsonc", yaml: "yaml yml toml ini",
  };
  const hash = new Set(["python", "sh", "yaml"]);
  const all = new Map();
  for (const [name, list] of Object.entries(alias)) {
    const comment = name === "sql" ? "--[^\\n]*" : hash.has(name) ? "#[^\\n]*" : name === "json" ? "//[^\\n]*" : "//[^\\n]*|/\\*[^]*?(?:\\*/|$)";
    const string = (name === "python" ? '"""[^]*?(?:"""|$)|\'\'\'[^]*?(?:\'\'\'|$)|' : "") + '"(?:\\\\[^]|[^"\\\\\\n])*"?|\'(?:\\\\[^]|[^\'\\\\\\n])*\'?' + (name === "js" || name === "go" ? "|`(?:\\\\[^]|[^`\\\\])*`?" : "");
    const language = {
      pattern: new RegExp(`(${comment})|(${string})|(\\b(?:0[xX][0-9a-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)|([A-Za-z_$][\\w$]*)`, "g"),
      words: new Set(words[name].split(" ")),
      anyCase: name === "sql",
    };
    for (const a of list.split(" ")) all.set(a, language);
  }
  return all;
})();

function highlight(code, name) {
  const language = LANGUAGES.get((name || "").toLowerCase());
  const out = el("code");
  if (!language || code.length > HIGHLIGHT_MOST) {
    out.textContent = code;
    return out;
  }
  let at = 0;
  const { pattern, words, anyCase } = language;
  pattern.lastIndex = 0;
  for (let m; (m = pattern.exec(code)); ) {
    if (!m[0]) {
      pattern.lastIndex++;
      continue;
    }
    const word = m[4] && words.has(anyCase ? m[4].toLowerCase() : m[4]);
    const call = m[4] && !word && code[pattern.lastIndex] === "(";
    const kind = m[1] ? "h-comment" : m[2] ? "h-string" : m[3] ? "h-number" : word ? "h-word" : call ? "h-call" : null;
    if (!kind) continue;
    out.append(code.slice(at, m.index), el("span." + kind, null, m[0]));
    at = m.index + m[0].length;
  }
  out.append(code.slice(at));
  return out;
}
