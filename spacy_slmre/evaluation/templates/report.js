// Turn headers into buttons that sort the rows of each body; a second press reverses the order.
const sort = (table, column, numeric, descending) => {
  const cell = row => row.cells[column];
  const isMissing = row => cell(row).textContent.trim() === "–";
  const order = numeric
    ? (a, b) => cell(a).dataset.number - cell(b).dataset.number
    : (a, b) => cell(a).textContent.trim().localeCompare(cell(b).textContent.trim(), "en");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter(row => !row.querySelector(".group"));
    // Missing values stay at the end.
    rows.sort((a, b) => isMissing(a) - isMissing(b) || (isMissing(a) ? 0 : order(a, b) * (descending ? -1 : 1)));
    body.append(...rows);
  }
};
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const numeric = header.classList.contains("numeric");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.ariaSort ? header.ariaSort === "ascending" : numeric;
      for (const other of headers) other.ariaSort = null;
      header.ariaSort = descending ? "descending" : "ascending";
      sort(table, column, numeric, descending);
    });
  });
}
