/* Beginning, the two views, keys. */

function showView() {
  const cluster = location.hash === "#cluster";
  $("cluster").hidden = !cluster;
  $("chat").hidden = cluster;
  $("tab-chat").setAttribute("aria-current", cluster ? "false" : "page");
  $("tab-cluster").setAttribute("aria-current", cluster ? "page" : "false");
  document.body.classList.toggle("shows-cluster", cluster);
  activity.close = cluster;
  activity.poke();
  clusterView.show();
}

/* Esc: what is open closes, what runs stops. */
document.addEventListener("keydown", (e) => {
  if (e.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (sidebar.isOpen()) sidebar.close();
  else if (chat.isRunning()) chat.stop();
  else if (!chat.cancelEdit()) return;
  e.preventDefault();
});

for (const dialog of document.querySelectorAll("dialog"))
  dialog.addEventListener("click", (e) => {
    if (e.target === dialog) dialog.close(); /* beside it */
  });

for (const glyph of document.querySelectorAll("[data-icon]")) glyph.replaceWith(icon(glyph.dataset.icon));
document.querySelector(".skip").addEventListener("click", (e) => {
  e.preventDefault();
  location.hash = "#chat";
  showView();
  $("input").focus();
});
sidebar.make();
chat.make();
clusterView.make();
chat.open(store.read("current") && store.has(store.read("current")) ? store.read("current") : null);
addEventListener("hashchange", showView);
document.addEventListener("visibilitychange", activity.poke);

activity.onChange(() => {
  if (activity.status) {
    chat.setModel(activity.status.model);
    chat.showWelcome(activity.status);
    document.title = activity.status.model + " · Stagecoach";
  }
  clusterView.show();
});
showView();
activity.start();
(function frame() {
  clusterView.paint();
  requestAnimationFrame(frame);
})();
if (matchMedia("(hover: hover)").matches) $("input").focus();
