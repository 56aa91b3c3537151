// Headers become buttons that sort the rows of each body; a second press turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const falling = header.ariaSort ? header.ariaSort === "ascending" : header.classList.contains("numeric");
      for (const other of headers) other.ariaSort = null;
      header.ariaSort = falling ? "descending" : "ascending";
      const key = row => row.cells[column].dataset.number ?? row.cells[column].textContent.trim();
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter(row => !row.querySelector(".group"));
        const empty = row => row.cells[column].textContent.trim() === "–";
        rows.sort((a, b) => empty(a) - empty(b) || (falling ? -1 : 1) * key(a).localeCompare(key(b), "en", {numeric: false}));
        if (rows.every(row => empty(row) || row.cells[column].dataset.number !== undefined))
          rows.sort((a, b) => empty(a) - empty(b) || (falling ? -1 : 1) * (key(a) - key(b)));
        body.append(...rows);
      }
    });
  });
}
