"use strict";
(() => {
  const graph = document.getElementById("graph");
  const panel = document.getElementById("panel");
  const edges = JSON.parse(document.getElementById("data").textContent);
  const arcs = [...graph.querySelectorAll(".arc")];
  const nodes = [...graph.querySelectorAll(".node")];
  const whole = graph.viewBox.baseVal;
  const all = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
  let view = { ...all };
  let selected = null; // selected by a click: stays in the panel
  const READABLE = 0.7; // pixels per unit

  // -- zooming and moving
  function show() {
    graph.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
    // Labels too small to read would only hide the graph.
    graph.classList.toggle("far", scale() < 0.42);
  }
  function scale() {
    const box = graph.getBoundingClientRect();
    return Math.min(box.width / view.width, box.height / view.height);
  }
  function zoom(factor, x = view.x + view.width / 2, y = view.y + view.height / 2) {
    const width = Math.min(Math.max(view.width * factor, 80), all.width * 4);
    factor = width / view.width;
    view = { x: x - (x - view.x) * factor, y: y - (y - view.y) * factor, width, height: view.height * factor };
    show();
  }
  function move(x, y) {
    view.x += x;
    view.y += y;
    show();
  }
  function reveal(item) {
    const { left, right, top, bottom } = graph.getBoundingClientRect();
    const inner = item.getBoundingClientRect();
    if (left <= inner.left && inner.right <= right && top <= inner.top && inner.bottom <= bottom) return;
    const box = item.getBBox();
    move(box.x + box.width / 2 - view.x - view.width / 2, box.y + box.height / 2 - view.y - view.height / 2);
  }
  function place(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(graph.getScreenCTM().inverse());
    return [point.x, point.y];
  }
  graph.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) * 0.002), ...place(event));
  }, { passive: false });
  let from = null;
  let moved = false;
  graph.addEventListener("pointerdown", (event) => {
    from = place(event);
    moved = false;
  });
  window.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = place(event);
    if (!moved && Math.hypot(x - from[0], y - from[1]) * graph.clientWidth / view.width < 4) return;
    moved = true;
    move(from[0] - x, from[1] - y);
  });
  window.addEventListener("pointerup", () => { from = null; });
  graph.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = view.width / 10;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(0.8);
    else if (event.key === "-") zoom(1.25);
    else if (event.key === "0") reset();
    else if (event.key === "Escape") { selected = null; highlight(null); }
    else if ((event.key === "Enter" || event.key === " ") && event.target !== graph) select(event.target);
    else return;
    event.preventDefault();
  });
  function reset() {
    view = { ...all };
    show();
  }
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      if (button.dataset.zoom === "all") reset();
      else zoom(button.dataset.zoom === "in" ? 0.75 : 1.33);
    });
  }

  // -- details of an edge or a node
  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text ?? "";
    return made;
  }
  function showDetails(numbers) {
    const parts = [];
    for (const number of numbers) {
      const edge = edges[number];
      parts.push(element("h2", `${edge.head} – ${edge.label} ${edge.symmetric ? "–" : "→"} ${edge.tail}`));
      const times = edge.count > 1 ? `found ${edge.count} times, best score` : "score";
      parts.push(element("div", `${times} ${edge.score.toFixed(2)}`));
      for (const source of edge.sources) {
        const quote = element("blockquote");
        quote.setAttribute("style", edge.style);
        for (const [words, side] of source.parts) quote.append(side ? element("b", words) : words);
        quote.append(element("cite", `${source.document}, score ${source.score.toFixed(2)}`));
        parts.push(quote);
      }
      if (edge.count > edge.sources.length) {
        parts.push(element("p", `and ${edge.count - edge.sources.length} more`));
      }
    }
    panel.replaceChildren(...parts);
  }
  function highlight(target) {
    const near = new Set();
    const numbers = [];
    if (target) {
      near.add(target);
      for (const arc of arcs) {
        const ends = [nodes[arc.dataset.head], nodes[arc.dataset.tail]];
        if (arc === target || ends.includes(target)) {
          numbers.push(Number(arc.dataset.edge));
          near.add(arc);
          ends.forEach((end) => near.add(end));
        }
      }
      showDetails(numbers);
    }
    graph.classList.toggle("dimmed", Boolean(target));
    for (const item of [...arcs, ...nodes]) {
      item.classList.toggle("near", near.has(item));
      item.classList.toggle("chosen", item === target);
    }
  }
  function select(target) {
    selected = selected === target ? null : target;
    highlight(selected);
  }
  for (const item of [...arcs, ...nodes]) {
    item.addEventListener("pointerenter", () => { if (!from) highlight(item); });
    item.addEventListener("pointerleave", () => { if (!from) highlight(selected); });
    item.addEventListener("focus", () => {
      if (!item.matches(":focus-visible")) return;
      highlight(item);
      reveal(item);
    });
    item.addEventListener("blur", () => highlight(selected));
    item.addEventListener("click", () => { if (!moved) select(item); });
  }
  // A large graph opens at a size at which names can be read, around the entity with the most relations.
  const opened = scale() || 1; // 0 in a hidden frame
  zoom(Math.min(1, opened / READABLE), ...graph.dataset.center.split(" ").map(Number));
})();
