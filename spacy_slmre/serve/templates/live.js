"use strict";
(() => {
  const form = document.getElementById("form");
  const text = document.getElementById("text");
  const button = form.querySelector("button");
  const status = document.getElementById("status");
  const result = document.getElementById("result");

  function report(message, failed = false) {
    status.textContent = message;
    status.classList.toggle("failed", failed);
  }
  async function find() {
    const body = JSON.stringify({ text: text.value });
    if (new Blob([body]).size > Number(status.dataset.limit)) {
      report(`The text is longer than ${status.dataset.limit} bytes.`, true);
      return;
    }
    button.disabled = true;
    report("Searching …");
    const began = performance.now();
    try {
      const answer = await fetch("/relations", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      const content = await answer.json();
      if (answer.ok) {
        result.innerHTML = content.html; // the server escapes all texts
        report(`${((performance.now() - began) / 1000).toFixed(1)} s`);
      } else {
        report(content.error, true);
      }
    } catch (error) {
      report(`No answer. Is the server still running? (${error.message})`, true);
    } finally {
      button.disabled = false;
    }
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!button.disabled) find();
    }
  });
})();
