// All together; again when the width or the colours change.

function render() {
  style = getComputedStyle(document.documentElement);
  watchers.length = 0;
  leaderboard();
  curves();
  parallel();
  schedule();
  importance();
  lineage();
  tell();
}
// Many lines become one area unless each is thin ink.
document.body.style.setProperty("--ink", trials.length > 400 ? .4 : trials.length > 100 ? .65 : .85);
head();
troubles();
render();
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; ranges.clear(); kept = null; render(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
