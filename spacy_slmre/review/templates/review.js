"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const [pair, figure, labels, select, reverse, back, keep, status] =
    ["pair", "figure", "labels", "label", "reverse", "back", "keep", "status"].map(get);
  const buttons = [...document.querySelectorAll("button[data-key]")];
  const visited = JSON.parse(back.dataset.visited); // the pairs before the current one, the latest last
  let state = null; // what the server said about the current pair, with the chosen labels and direction
  let busy = false;
  let picture = 0; // number of the last picture that was asked for

  function report(message, failed = false) {
    status.textContent = message;
    status.classList.toggle("failed", failed);
  }
  async function request(path, data, show) {
    try {
      const body = JSON.stringify(data);
      const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      const content = await answer.json();
      if (answer.ok) {
        report("");
        show(content);
      } else {
        report(content.error, true);
      }
    } catch (error) {
      report(`No answer. Is the server still running? Decisions up to here are saved. (${error.message})`, true);
    }
  }
  // One at a time: a key must not decide about a pair that is not on the page yet.
  async function go(path, data, after) {
    if (busy) return;
    busy = true;
    await request(path, data, (content) => {
      after();
      show(content);
    });
    busy = false;
  }
  function show(content) {
    state = content;
    get("progress").max = Math.max(content.total, 1);
    get("progress").value = content.decided;
    get("count").textContent = `${content.decided} of ${content.total} pairs decided`;
    back.disabled = !visited.length;
    pair.hidden = content.item === null;
    get("done").hidden = content.item !== null;
    if (content.item === null) return;
    get("kind").textContent = content.is_predicted ? "Predicted relation" : "Near miss";
    get("document").textContent = `in ${content.document}`;
    select.replaceChildren(...content.choices.map((name) => new Option(name)));
    showProbabilities();
    showChoice();
    picture++; // a picture of the pair before may still be on its way
    figure.innerHTML = content.html; // the server escapes all texts
    keep.hidden = !content.decision;
    if (content.decision) report(`Your decision was: ${content.decision}. Keep it, or decide again.`);
  }
  function showProbabilities() {
    let key = 0;
    const shown = state.probabilities.map(([name, probability]) => {
      const text = `${name} ${probability.toFixed(2)}`;
      if (name === state.negative) return Object.assign(document.createElement("span"), { textContent: text });
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
      button.dataset.name = name;
      button.dataset.key = String(++key);
      button.prepend(Object.assign(document.createElement("kbd"), { textContent: key }));
      button.addEventListener("click", () => choose([name], state.reversed));
      return button;
    });
    labels.replaceChildren(...shown);
  }
  function showChoice() {
    select.value = state.labels[0];
    reverse.setAttribute("aria-pressed", state.reversed);
    for (const button of labels.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", state.labels.includes(button.dataset.name));
    }
  }
  function choose(names, reversed) {
    Object.assign(state, { labels: names, reversed });
    showChoice();
    const number = ++picture;
    request("/draw", { item: state.item, labels: names, reversed }, (content) => {
      if (number === picture) figure.innerHTML = content.html;
    });
  }
  function leave(path, data) {
    const { item } = state;
    go(path, data, () => visited.push(item));
  }
  function decide(action) {
    const { item, labels, reversed } = state;
    leave("/decide", { item, action, labels, reversed });
  }
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => decide(button.dataset.action));
  }
  reverse.addEventListener("click", () => choose(state.labels, !state.reversed));
  back.addEventListener("click", () => go("/item", { item: visited.at(-1) }, () => visited.pop()));
  keep.addEventListener("click", () => leave("/item", {}));
  select.addEventListener("change", () => choose([select.value], state.reversed));
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.activeElement === select) {
      if (event.key === "Enter" || event.key === "Escape") select.blur();
      return; // letters select an option
    }
    const key = event.key.toLowerCase();
    const button = [...buttons, ...labels.querySelectorAll("button")].find((one) => one.dataset.key === key);
    if (key === "l") select.focus();
    else if (button?.offsetParent && !button.disabled) button.click(); // those without a parent are hidden
    else return;
    event.preventDefault();
  });
  go("/item", {}, () => {});
})();
