"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const said = document.getElementById("self-check");
  const numbers = [...document.querySelectorAll("[data-at]")];

  // RFC 8785: keys in the order of their code units, numbers and strings as ECMAScript writes them.
  const canonical = (value) => {
    if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
    if (value === null || typeof value !== "object") return JSON.stringify(value);
    return "{" + Object.keys(value).sort().map((key) => JSON.stringify(key) + ":" + canonical(value[key])).join(",") + "}";
  };

  const origin = (node) => {
    const [file, field] = node.dataset.at.split("#");
    const keys = field.split("/").slice(1).map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
    const value = keys.reduce((at, key) => (at === undefined || at === null ? undefined : at[key]), data.files[file]?.content);
    const path = keys.map((key) => (/^\d+$/.test(key) ? `[${key}]` : `[${JSON.stringify(key)}]`)).join("");
    return { file, field, value, hash: data.files[file]?.sha256, look: `jq '.${path}' ${file}` };
  };

  // A number agrees to the digits printed; a sentence is the end of its field.
  const agrees = (text, value) => {
    if (typeof value === "string") return text !== "" && value.toLowerCase().endsWith(text.toLowerCase());
    if (typeof value !== "number") return false;
    let plain = text.replace("−", "-").replaceAll(",", "").trim();
    const scale = plain.endsWith("%") ? 100 : 1;
    plain = plain.replace("%", "");
    if (plain === "" || Number.isNaN(Number(plain))) return false;
    const [mantissa, exponent] = plain.toLowerCase().split("e");
    const digits = (mantissa.split(".")[1] ?? "").length - Number(exponent ?? 0);
    const shown = Number(plain), real = value * scale;
    return Math.abs(shown - real) <= Math.max(0.5 * 10 ** -digits * (1 + 1e-9), 1e-12 * Math.abs(real));
  };

  const digest = async () => {
    if (!globalThis.crypto?.subtle) return null;
    const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(canonical(data)));
    return [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  };

  const check = async () => {
    const wrong = numbers.filter((node) => {
      const { value } = origin(node);
      const stored = node.hasAttribute("value") ? Number(node.getAttribute("value")) === value : true;
      return !stored || !agrees(node.textContent, value);
    });
    wrong.forEach((node) => node.classList.add("wrong"));
    const found = await digest();
    const expected = document.querySelector("meta[name=suture-data-sha256]").content;
    const intact = found === null ? "this browser hashes nothing for local files, so their digest was not checked" :
      found === expected ? "their digest is right" : "THEIR DIGEST IS WRONG: the data in this page were changed";
    const good = wrong.length === 0 && (found === null || found === expected);
    said.className = good ? "pass" : "fail";
    said.textContent = wrong.length === 0
      ? `${good ? "✓" : "✗"} Checked just now, by this page: ${numbers.length} printed values agree with the data in it; ${intact}.`
      : `✗ ${wrong.length} of ${numbers.length} printed values differ from the data in this page (marked); ${intact}.`;
    document.documentElement.dataset.selfCheck = good ? "passed" : "failed";
  };

  const panel = document.getElementById("origin");
  const show = (node) => {
    const { file, field, value, hash, look } = origin(node);
    panel.replaceChildren();
    const add = (name, text) => {
      const line = document.createElement("p"), label = document.createElement("b");
      label.textContent = name + " ";
      line.append(label, text);
      panel.append(line);
    };
    add("Value", String(value));
    add("File", file);
    add("Field", field);
    add("SHA-256", hash ?? "none: this file goes on being written");
    add("In the run", look);
    panel.hidden = false;
  };
  document.addEventListener("click", (event) => {
    const node = event.target.closest("[data-at]");
    if (node) show(node);
    else if (!panel.contains(event.target)) panel.hidden = true;
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") panel.hidden = true; });

  // Tables sort by a column's head: numbers as numbers, texts as texts, what has no number last.
  const key = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    const marked = cell.querySelector("data");
    const plain = marked ? marked.getAttribute("value") : cell.textContent.replace("−", "-").replaceAll(",", "").trim();
    const value = parseFloat(plain);
    return Number.isNaN(value) ? cell.textContent.trim().toLowerCase() : value;
  };
  const compare = (one, other) => {
    if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
    return typeof one === "number" ? -1 : 1;
  };
  for (const table of document.querySelectorAll("table")) {
    const head = table.tHead?.rows[0], body = table.tBodies[0];
    if (!head || !body || body.rows.length < 3) continue;
    [...head.cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        [...head.cells].forEach((other) => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row, place) => ({ row, place, key: key(row, column) }));
        rows.sort((a, b) => (down ? -1 : 1) * compare(a.key, b.key) || a.place - b.place);
        body.append(...rows.map(({ row }) => row));
      });
    });
  }
  check();
})();
