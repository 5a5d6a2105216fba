"use strict";
// Values under the pointer, from each chart's own table, and tables that sort. The page is whole
// without it.
for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector(".plot svg"), table = figure.querySelector(".figures table");
  if (!svg || !table) continue;
  const rows = [...table.tBodies[0].rows], places = rows.map((row) => Number(row.dataset.x));
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const cross = svg.querySelector(".cross"), width = svg.viewBox.baseVal.width;
  let tip = null, at = -1;
  const element = (name, text, parent) => {
    const made = parent.appendChild(document.createElement(name));
    made.textContent = text;
    return made;
  };
  const hide = () => {
    tip?.remove();
    tip = null;
    at = -1;
    for (const end of ["x1", "x2"]) cross.setAttribute(end, "-9");
  };
  const show = (row) => {
    if (row === at || row < 0 || row >= rows.length) return;
    hide();
    at = row;
    for (const end of ["x1", "x2"]) cross.setAttribute(end, places[row]);
    tip = figure.appendChild(document.createElement("div"));
    tip.className = "tip";
    tip.setAttribute("role", "status");
    const cells = [...rows[row].cells];
    element("b", `${names[0]} ${cells[0].textContent}`, tip);
    for (let number = 1; number < cells.length; number++) {
      const line = element("div", "", tip);
      element("span", names[number], line);
      element("span", cells[number].textContent, line);
    }
    const outer = figure.getBoundingClientRect(), box = svg.getBoundingClientRect();
    const x = box.left - outer.left + (places[row] / width) * box.width;
    const right = x + 14 + tip.offsetWidth > outer.width;
    tip.style.left = `${Math.max(0, right ? x - 14 - tip.offsetWidth : x + 14)}px`;
    tip.style.top = `${box.top - outer.top + 14}px`;
  };
  const nearest = (x) => {
    let best = 0;
    for (let row = 1; row < places.length; row++)
      if (Math.abs(places[row] - x) < Math.abs(places[best] - x)) best = row;
    return best;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    show(nearest(((event.clientX - box.left) / box.width) * width));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    show(Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + step)));
  });
}
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0], key = (row) => {
        const cell = row.cells[column], value = cell.dataset.v;
        return value === undefined ? cell.textContent : Number(value);
      };
      const sorted = [...body.rows].sort((a, b) => {
        const one = key(a), other = key(b);
        const order = typeof one === "number" && typeof other === "number"
          ? one - other : String(one).localeCompare(String(other));
        return down ? -order : order;
      });
      body.append(...sorted);
    });
  });
}
