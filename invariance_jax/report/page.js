"use strict";
// Draws the page's charts, each when it comes near the screen, and makes its tables work.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const specs = read("specs"), themes = read("themes");
  // What is repeated stands once: its place is in `at`.
  const whole = (column) => (Array.isArray(column) ? column : column.at.map((place) => column.of[place]));
  const columns = Object.fromEntries(Object.entries(read("datasets")).map(([name, table]) =>
    [name, Object.fromEntries(Object.entries(table).map(([each, column]) => [each, whole(column)]))]));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 700px)");
  const views = new Map();

  const rowsOf = (name) => {
    const table = columns[name], names = Object.keys(table);
    const count = names.length ? table[names[0]].length : 0;
    return Array.from({ length: count }, (_, i) =>
      Object.fromEntries(names.map((each) => [each, table[each][i]])));
  };

  const draw = async (figure) => {
    const chart = specs[figure.id], place = figure.querySelector(".chart");
    const spec = structuredClone(chart[narrow.matches ? "phone" : "page"]);
    spec.datasets = { table: rowsOf(chart.data) };
    spec.config = themes[dark.matches ? "dark" : "light"];
    try {
      views.get(figure.id)?.finalize();
      // Expressions are interpreted: the page allows no code made of text.
      const found = await vegaEmbed(place, spec, { actions: false, ast: true, renderer: "svg", tooltip: { theme: dark.matches ? "dark" : "light" } });
      views.set(figure.id, found);
      place.dataset.drawn = "yes";
    } catch (error) {
      place.textContent = `This chart could not be drawn: ${error}`;
    }
  };

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "600px" });
  figures.forEach((each) => watcher.observe(each));
  const again = () => figures.filter((each) => views.has(each.id)).forEach(draw);
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
  window.addEventListener("beforeprint", () => figures.filter((each) => !views.has(each.id)).forEach(draw));

  // Copying: the charts' rows as CSV, tables as CSV, Markdown and LaTeX.
  const quoted = (cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const csv = (lines) => lines.map((line) => line.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\n") + "\n";
  const cellsOf = (table) => [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const escaped = (cell) => cell.replace(/[\\&%$#_{}~^]/g, (sign) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" })[sign] ?? `\\${sign}`).replaceAll("±", "$\\pm$").replaceAll("−", "$-$").replaceAll("≤", "$\\le$");
  const forms = {
    csv,
    markdown: ([head, ...body]) => [head, head.map(() => "---"), ...body].map((line) => `| ${line.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`).join("\n") + "\n",
    latex: ([head, ...body]) => `\\begin{tabular}{${"l".repeat(head.length)}}\n\\toprule\n${[head, null, ...body].map((line) => (line ? `${line.map(escaped).join(" & ")} \\\\` : "\\midrule")).join("\n")}\n\\bottomrule\n\\end{tabular}\n`,
  };
  const copy = async (button, text) => {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page from disk may have no clipboard.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.dataset.copied = text;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = said; }, 1200);
  };
  for (const button of document.querySelectorAll("button[data-form]")) {
    button.addEventListener("click", () => {
      const figure = button.closest("figure");
      if (figure) {
        const table = columns[specs[figure.id].data], names = Object.keys(table);
        const rows = names.length ? table[names[0]].map((_, i) => names.map((each) => table[each][i])) : [];
        copy(button, csv([names, ...rows]));
      } else {
        copy(button, forms[button.dataset.form](cellsOf(button.closest(".numbers").querySelector("table"))));
      }
    });
  }

  // Tables: a click on a column's name sorts, words filter.
  const value = (cell) => {
    const number = parseFloat(cell.textContent.replaceAll("−", "-").replaceAll(",", "").replace("+", ""));
    return Number.isNaN(number) ? cell.textContent.trim() : number;
  };
  for (const table of document.querySelectorAll(".numbers table")) {
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      const button = head.querySelector("button");
      button.addEventListener("click", () => {
        const upwards = head.getAttribute("aria-sort") !== "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", upwards ? "descending" : "ascending");
        const sign = upwards ? -1 : 1;
        const sorted = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [value(a.cells[place]), value(b.cells[place])];
          if (typeof x === typeof y) return sign * (x < y ? -1 : x > y ? 1 : 0);
          return typeof x === "number" ? -1 : 1;
        });
        table.classList.add("sorted");
        table.tBodies[0].append(...sorted);
      });
    });
    const filter = table.closest(".numbers").querySelector("input");
    filter?.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
      }
    });
  }
})();
