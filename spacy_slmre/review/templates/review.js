"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const [pair, figure, labels, select, reverse, back, status] =
    ["pair", "figure", "labels", "label", "reverse", "back", "status"].map(get);
  const buttons = [...document.querySelectorAll("button[data-key]")];
  const visited = []; // the pairs before the current one
  let state = null; // what the server said about the current pair, with the chosen labels and direction
  let busy = false;

  function report(message, failed = false) {
    status.textContent = message;
    status.classList.toggle("failed", failed);
  }
  // Only one request at a time: a key must not decide about a pair that is not on the page yet.
  async function send(path, data, show) {
    if (busy) return;
    busy = true;
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
    } finally {
      busy = false;
    }
  }
  function show(content) {
    state = content;
    get("progress").max = Math.max(content.total, 1);
    get("progress").value = content.decided;
    get("count").textContent = `${content.decided} of ${content.total} pairs decided`;
    pair.hidden = content.item === null;
    get("done").hidden = content.item !== null;
    if (content.item === null) return;
    get("kind").textContent = content.is_predicted ? "Predicted relation" : "Near miss";
    get("document").textContent = `in ${content.document}`;
    back.disabled = !visited.length;
    select.replaceChildren(...content.choices.map((name) => new Option(name)));
    showProbabilities();
    draw(content.html);
    if (content.decision) report(`Your decision was: ${content.decision}. A new one replaces it.`);
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
  function draw(html) {
    figure.innerHTML = html; // the server escapes all texts
    select.value = state.labels[0];
    reverse.setAttribute("aria-pressed", state.reversed);
    for (const button of labels.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", state.labels.includes(button.dataset.name));
    }
  }
  function choose(names, reversed) {
    send("/draw", { item: state.item, labels: names, reversed }, (content) => {
      Object.assign(state, { labels: names, reversed });
      draw(content.html);
    });
  }
  function decide(action) {
    const { item, labels, reversed } = state;
    send("/decide", { item, action, labels, reversed }, (content) => {
      visited.push(item);
      show(content);
    });
  }
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => decide(button.dataset.action));
  }
  reverse.addEventListener("click", () => choose(state.labels, !state.reversed));
  back.addEventListener("click", () => {
    const item = visited[visited.length - 1];
    send("/item", { item }, (content) => {
      visited.pop();
      show(content);
    });
  });
  select.addEventListener("change", () => choose([select.value], state.reversed));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || pair.hidden) return;
    if (document.activeElement === select) {
      if (event.key === "Enter" || event.key === "Escape") select.blur();
      return; // letters select an option
    }
    const key = event.key.toLowerCase();
    const button = [...buttons, ...labels.querySelectorAll("button")].find((one) => one.dataset.key === key);
    if (key === "l") select.focus();
    else if (button && !button.disabled) button.click();
    else return;
    event.preventDefault();
  });
  send("/item", {}, show);
})();
