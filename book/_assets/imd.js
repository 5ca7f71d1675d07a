/* Lets the built book work with no network.
 *
 * py3Dmol fetches 3Dmol.js from a CDN unless $3Dmolpromise exists; give it one that loads the copy
 * beside the book, and only on pages that have a viewer. In Jupyter and Colab this file is absent and
 * py3Dmol does what it always does.
 */
(function () {
  const root = document.documentElement.dataset.content_root || "./";
  const source = new URL(root + "_static/vendor/3dmol/3Dmol-min.js", document.baseURI).href;
  let loading = null;
  const load = () =>
    (loading ||= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = resolve;
      script.onerror = reject;
      document.head.appendChild(script);
    }));
  window.$3Dmolpromise = { then: (done, failed) => load().then(done, failed) };
})();

/* A table that is wider than its page fades at the side, as long as more of it is hidden there. */
(function () {
  const boxes =
    ".pst-scrollable-table-container, .cell_output .text_html, .cell_output div:has(> .imd-board)";
  const mark = (box) =>
    box.classList.toggle("imd-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
  const watch = (box) => {
    box.addEventListener("scroll", () => mark(box), { passive: true });
    new ResizeObserver(() => mark(box)).observe(box);
    mark(box);
  };
  addEventListener("load", () => document.querySelectorAll(boxes).forEach(watch));
})();
