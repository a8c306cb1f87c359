"use strict";
const field = (id) => document.getElementById(id);
const rows = [...document.querySelector("table.cohort").tBodies[0].rows];
function choose() {
  const words = field("filter").value.toLowerCase().split(/\s+/);
  const from = +field("from").value || 0, failed = field("failed")?.checked;
  for (const row of rows) {
    const text = row.textContent.toLowerCase(), score = +row.cells[1].textContent;
    row.hidden = !words.every((word) => text.includes(word)) || score < from || (failed && !row.classList.contains("failed"));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  field("count").textContent = shown === rows.length ? "" : `${shown} of ${rows.length} shown`;
}
for (const id of ["filter", "from", "failed"]) field(id)?.addEventListener("input", choose);
