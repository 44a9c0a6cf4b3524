"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const detail = document.getElementById("detail");
  const views = [...document.querySelectorAll("[data-view]")];
  const tabs = [...document.querySelectorAll("[data-track]")];
  let language = document.documentElement.lang;
  let selected = null;

  const make = (tag, style, text) => {
    const node = document.createElement(tag);
    if (style) node.className = style;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const percent = (p) =>
    p > 0 && p < 0.0005 ? "<0.1%" : p >= 0.9995 && p < 1 ? ">99.9%" : (100 * p).toFixed(1) + "%";
  const nats = (kl) => (kl === 0 || kl >= 0.001 ? String(+kl.toPrecision(3)) : kl.toExponential(0));

  const bars = (move, most) => {
    const row = make("div", "move");
    row.append(make("span", "name", move.token));
    const pair = make("div");
    for (const [side, value] of [["base", move.before], ["adapter", move.after]]) {
      const bar = make("div", "bar " + side);
      bar.style.width = Math.max(0.5, (100 * value) / most) + "%";
      pair.append(bar);
    }
    row.append(pair);
    const words = data.words[language];
    row.append(make("span", "figures",
      `${percent(move.before)} → ${percent(move.after)}, ${words.rank} ${move.rank_before} → ${move.rank_after}`));
    return row;
  };

  const show = (chip) => {
    const view = chip.closest("[data-view]");
    for (const other of view.querySelectorAll(".chip[data-at]")) {
      other.setAttribute("aria-pressed", String(other === chip));
      other.tabIndex = other === chip ? 0 : -1;
    }
    for (const bar of view.querySelectorAll(".strip [data-bar]")) {
      bar.classList.toggle("here", bar.dataset.bar === chip.dataset.at);
    }
    selected = chip;
    const position = data.tracks[view.dataset.view][Number(chip.dataset.at)];
    const words = data.words[language];
    const parts = [make("h3", "", words.after)];
    parts.push(make("p", "context", "…" + position.context));
    parts.push(make("p", "note", `KL ${nats(position.kl)} ${words.nats}`));
    const moves = [...position.rose, ...position.fell, ...(position.next ? [position.next] : [])];
    const most = Math.max(1e-12, ...moves.flatMap((move) => [move.before, move.after]));
    const legend = make("p", "note");
    legend.append(make("span", "key base"), words.base, make("span", "key adapter"), words.adapter);
    parts.push(legend);
    if (position.next) parts.push(make("h3", "", words.next), bars(position.next, most));
    for (const name of ["rose", "fell"]) {
      parts.push(make("h3", "", words[name]));
      if (position[name].length === 0) parts.push(make("p", "note", words.none));
      parts.push(...position[name].map((move) => bars(move, most)));
    }
    detail.replaceChildren(...parts);
  };

  const open = (track) => {
    for (const view of views) view.hidden = view.dataset.view !== track;
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.track === track));
    const view = views.find((one) => one.dataset.view === track);
    const chips = [...view.querySelectorAll(".chip[data-at]")];
    const values = data.tracks[track].map((position) => position.kl);
    show(chips[values.indexOf(Math.max(...values))]);
  };

  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  for (const view of views) {
    const chips = [...view.querySelectorAll(".chip[data-at]")];
    view.addEventListener("click", (event) => {
      const chip = event.target.closest(".chip[data-at]");
      const bar = event.target.closest("[data-hit]");
      if (chip) show(chip);
      if (bar) show(chips[Number(bar.dataset.hit)]);
    });
    view.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const here = chips.indexOf(event.target);
      if (step === undefined || here < 0) return;
      event.preventDefault();
      const chip = chips[Math.min(chips.length - 1, Math.max(0, here + step))];
      chip.focus();
      show(chip);
    });
  }
  for (const tab of tabs) tab.addEventListener("click", () => open(tab.dataset.track));
  document.getElementById("language").addEventListener("click", () => {
    language = language === "en" ? "ru" : "en";
    document.documentElement.lang = language;
    if (selected) show(selected);
  });
  if (views.length) open(views[0].dataset.view);
})();
