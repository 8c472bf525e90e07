"use strict";
// Sorting and filtering of the tables marked "filterable". Without it the page reads the same, in the order of trials.
for (const box of document.querySelectorAll(".filterable")) {
  const body = box.querySelector("tbody");
  const rows = Array.from(body.rows);
  const heads = Array.from(box.querySelectorAll("th"));
  const search = box.querySelector("input");
  const choice = box.querySelector("select");
  const shown = box.querySelector(".shown");
  const statusColumn = heads.findIndex((head) => head.textContent === "status");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? null : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (column, descending) => {
    const keyed = rows.map((row, place) => ({ row, place, key: value(row, column) }));
    keyed.sort((a, b) => {
      // What has no value stands last in either direction.
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      return (descending ? -1 : 1) * compare(a.key, b.key) || a.place - b.place;
    });
    body.append(...keyed.map((item) => item.row));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      // Numbers begin with the largest, text with A.
      const first = head.classList.contains("n") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sort(column, order === "descending");
    });
  });
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, place) => {
      const status = !choice || !choice.value || row.cells[statusColumn].textContent.trim() === choice.value;
      row.hidden = !(status && words.every((word) => texts[place].includes(word)));
      count += row.hidden ? 0 : 1;
    });
    shown.textContent = count === rows.length ? `${rows.length} trials` : `${count} of ${rows.length} trials`;
  };
  search.addEventListener("input", filter);
  if (choice) choice.addEventListener("change", filter);
  box.querySelector(".controls").hidden = false;
  filter();
}
