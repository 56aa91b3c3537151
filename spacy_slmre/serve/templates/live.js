"use strict";
(() => {
  const key = document.getElementById("key"); // only if the service needs one
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
    const body = JSON.stringify({ text: text.value, html: true });
    if (new Blob([body]).size > Number(status.dataset.limit)) {
      report(`The request is longer than ${status.dataset.limit} bytes.`, true);
      return;
    }
    button.disabled = true;
    report("Searching …");
    const began = performance.now();
    const headers = { "Content-Type": "application/json" };
    if (key) headers.Authorization = `Bearer ${key.value}`;
    try {
      const answer = await fetch("/relations", { method: "POST", headers, body });
      const content = await answer.json();
      const error = answer.ok ? content.documents[0].error : content.error;
      if (error) {
        report(error, true);
      } else {
        result.innerHTML = content.html; // the server escapes all texts
        report(`${((performance.now() - began) / 1000).toFixed(1)} s`);
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
