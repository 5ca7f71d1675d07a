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

/* A table or an equation that is wider than its page fades at the side, as long as more of it is hidden there. */
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
  const watchAll = (names) => document.querySelectorAll(names).forEach(watch);
  addEventListener("load", () => {
    watchAll(boxes);
    window.MathJax?.startup?.promise?.then(() => watchAll("mjx-container[display='true']"));
  });
})();

/* Tables of pandas as a reader wants them: words to the left, numbers to the right under their names, no
 * row for the name of the index alone, a dash where there is no number, ∞ for inf, no sign before zero, an interval in one piece, and the numbers
 * of several runs too.
 */
(function () {
  const text = (cell) => (cell ? cell.textContent.trim() : "");
  const mendNumber = (cell) => {
    const interval = text(cell).match(/^([^()]+) (\([^()]*\d[^()]*(?: to |\u2013)[^()]*\))$/);
    if (text(cell) === "NaN") cell.textContent = "\u2013";
    else if (text(cell) === "inf") cell.textContent = "\u221e";
    else if (/^[\d.]+( \/ [\d.]+)+/.test(text(cell))) cell.textContent = text(cell).replaceAll(" / ", "\u00a0/\u00a0");
    else if (/^-0(\.0*)?$/.test(text(cell))) cell.textContent = text(cell).slice(1);
    else if (interval) {
      const ends = Object.assign(document.createElement("span"), { className: "imd-ends", textContent: interval[2] });
      cell.replaceChildren(`${interval[1]} `, ends);
    }
  };
  const joinNames = (above, names) => {
    const pairs = [...names.cells].map((cell, i) => [cell, above.cells[i]]);
    if (above.cells.length !== names.cells.length || pairs.some(([a, b]) => text(a) && text(b))) return above;
    pairs.forEach(([cell, place]) => text(cell) && place.replaceChildren(...cell.childNodes));
    names.remove();
    return above;
  };
  const tidy = (table) => {
    const heads = [...(table.tHead?.rows || [])];
    const head = heads.length > 1 ? joinNames(...heads.slice(-2)) : heads[0];
    const rows = [...(table.tBodies[0]?.rows || [])];
    rows.forEach((row) => [...row.cells].forEach((cell) => {
      mendNumber(cell);
      if (text(cell).length > 24) cell.style.minWidth = "14ch"; // a long one is not squeezed to a word a line
    }));
    // from the right, as the left cells may span rows
    const width = Math.max(0, ...rows.map((row) => row.cells.length));
    for (let i = 1; i <= width; i++) {
      const column = rows.map((row) => row.cells[row.cells.length - i]).filter(Boolean);
      if (!column.some((cell) => /^[a-z([]/i.test(text(cell)))) continue;
      const name = head && head.cells[head.cells.length - i];
      [name, ...column].forEach((cell) => cell && cell.classList.add("imd-words"));
    }
  };
  addEventListener("DOMContentLoaded", () => document.querySelectorAll("table.dataframe").forEach(tidy));
})();
