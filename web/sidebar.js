/* The list of chats. On a narrow screen it slides over the page. */

const sidebar = (() => {
  const narrow = matchMedia("(max-width: 860px)");

  function setOpen(open) {
    document.body.classList.toggle("sidebar-open", open);
    $("shade").hidden = !open;
    $("open-sidebar").setAttribute("aria-expanded", String(open));
    $("sidebar").inert = narrow.matches && !open;
    if (open) $("close-sidebar").focus();
    else if (document.activeElement === $("close-sidebar")) $("open-sidebar").focus();
  }

  function when(at) {
    const days = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 864e5);
    return days <= 0 ? "Today" : days === 1 ? "Yesterday" : days < 7 ? "This week" : days < 31 ? "This month" : "Earlier";
  }

  function item(c, current) {
    const open = el("button.chat", { type: "button", title: c.title, "aria-current": c.id === current ? "page" : null, onclick: () => {
      chat.open(c.id);
      location.hash = "#chat";
      setOpen(false);
    } }, c.title);
    const bin = iconButton("trash", `Delete “${c.title}”`, () => {
      if (!bin.classList.contains("sure")) {
        bin.classList.add("sure");
        bin.title = "Once more deletes it";
        say("Press again to delete this chat");
        setTimeout(() => bin.classList.remove("sure"), 3000);
        return;
      }
      store.remove(c.id);
      if (chat.id() === c.id) chat.open(null);
      self.show();
      say("Deleted");
    });
    return el("li", null, open, bin);
  }

  const self = {
    show() {
      const current = chat.id();
      const groups = new Map();
      for (const c of store.list()) groups.set(when(c.at), [...(groups.get(when(c.at)) || []), c]);
      $("chats").replaceChildren(...[...groups].map(([title, list]) => el("section", null, el("h2", null, title), el("ul", null, list.map((c) => item(c, current))))));
      if (!groups.size) $("chats").append(el("p.fine", null, "No chats yet."));
    },
    close: () => setOpen(false),
    isOpen: () => document.body.classList.contains("sidebar-open"),
    make() {
      $("open-sidebar").append(icon("menu"));
      $("close-sidebar").append(icon("close"));
      $("open-sidebar").addEventListener("click", () => setOpen(true));
      $("close-sidebar").addEventListener("click", () => setOpen(false));
      $("shade").addEventListener("click", () => setOpen(false));
      $("open-settings").addEventListener("click", openSettings);
      $("new-chat").addEventListener("click", () => {
        chat.open(null);
        location.hash = "#chat";
        setOpen(false);
        $("input").focus();
      });
      narrow.addEventListener("change", () => setOpen(false));
      setOpen(false);
      self.show();
    },
  };
  return self;
})();
