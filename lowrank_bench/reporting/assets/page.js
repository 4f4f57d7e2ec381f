"use strict";
// Tables sort and filter through DataTables; menus choose a setting or a method; a point of a figure shows its row.

const rows = new Map(); // by id, as DataTables takes hidden rows out of the page
for (const row of document.querySelectorAll("tr[id]")) {
  const headings = row.closest("table").querySelectorAll("thead th");
  const facts = [...row.cells].map((cell, number) => [headings[number].textContent.trim(), cell.textContent.trim()]);
  rows.set(row.id, { row, facts });
}

const shows = new Map(); // by id of a row: how to make its table show it
for (const node of document.querySelectorAll("table.sortable")) {
  const table = new DataTable(node, {
    paging: false,
    order: [],
    autoWidth: false,
    layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: null },
    language: { search: "Search", info: "_TOTAL_ rows", infoEmpty: "no rows", infoFiltered: "of _MAX_" },
  });
  const frame = node.closest(".wide");
  const scroller = node.closest(".dt-layout-table");
  for (const name of ["tabindex", "role", "aria-label"]) {
    scroller.setAttribute(name, frame.getAttribute(name));
    frame.removeAttribute(name);
  }
  const menus = document.querySelectorAll(`select[data-table="${node.id}"]`);
  const choose = () => {
    const wanted = [...menus].filter((menu) => menu.value !== "").map((menu) => [menu.dataset.column, menu.value]);
    table.search.fixed("menus", (text, data, number) => {
      const row = table.row(number).node();
      return wanted.every(([column, value]) => row.dataset[column] === value);
    });
    table.draw();
  };
  for (const menu of menus) {
    menu.addEventListener("change", choose);
    menu.closest("[hidden]")?.removeAttribute("hidden");
  }
  choose();
  for (const row of table.rows().nodes().toArray()) {
    shows.set(row.id, () => {
      for (const menu of menus) menu.value = menu.dataset.column === "setting" ? row.dataset.setting : "";
      table.search("");
      choose();
    });
  }
}

const tip = document.getElementById("tip");
const pointed = (event) => rows.get(event.target.closest?.("[data-row]")?.dataset.row);

document.addEventListener("pointerover", (event) => {
  const found = pointed(event);
  tip.hidden = !found;
  if (!found) return;
  tip.replaceChildren();
  for (const [name, text] of found.facts) {
    if (text === "") continue;
    const term = document.createElement("dt");
    const value = document.createElement("dd");
    term.textContent = name;
    value.textContent = text;
    tip.append(term, value);
  }
  const room = document.documentElement.getBoundingClientRect().width;
  const left = Math.min(event.pageX + 14, room - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${event.pageY + 14}px`;
});

document.addEventListener("click", (event) => {
  const found = pointed(event);
  if (!found) return;
  shows.get(found.row.id)?.();
  location.hash = found.row.id;
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
});

// A link to a row that a menu hides, as from another page, shows it.
const follow = () => {
  const id = location.hash.slice(1);
  const found = rows.get(id);
  if (!found) return;
  if (!found.row.isConnected) shows.get(id)?.();
  found.row.scrollIntoView({ block: "center" });
};
window.addEventListener("hashchange", follow);
follow();
