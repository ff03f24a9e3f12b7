"use strict";
// The gallery: filter, search and sort the samples of a part, draw those in sight, open one with its steps.
(() => {
  const HEIGHTS = { classification: 126, retrieval: 146, captioning: 146 };  // pixels of a row of cards; texts need two lines
  const LEAST = 300;   // pixels that a card is wide, at least
  const SORTS = [
    ["as in the dataset", null],
    ["reward gain, largest first", (a, b) => down(a.gain, b.gain)],
    ["reward gain, smallest first", (a, b) => up(a.gain, b.gain)],
    ["least confident first", (a, b) => up(a.confidence[1], b.confidence[1])],
    ["slowest first", (a, b) => down(a.seconds, b.seconds)],
  ];
  const byId = (id) => document.getElementById(id);
  const list = byId("list"), detail = byId("detail"), search = byId("search"), sort = byId("sort");
  const parts = [...document.querySelectorAll("section.part")];
  let part = null, height = 0, shown = [], filter = "all", current = 0, opened = 0, columns = 1;

  // Numbers that are missing come last, whichever way is sorted.
  function up(a, b) { return (a ?? Infinity) === (b ?? Infinity) ? 0 : (a ?? Infinity) - (b ?? Infinity); }
  function down(a, b) { return (b ?? -Infinity) === (a ?? -Infinity) ? 0 : (b ?? -Infinity) - (a ?? -Infinity); }

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // ---- data ----

  const loaded = new Map();
  function load(number) {
    if (!loaded.has(number)) {
      const { names, keys, rows, chunk, kinds, task } = JSON.parse(byId(`rows-${number}`).textContent);
      const samples = rows.map((row, index) => {
        const sample = Object.fromEntries(keys.map((key, i) => [key, row[i]]));
        sample.index = index;
        sample.truth = sample.truth.map((i) => names[i]);
        sample.answers = sample.answers.map((i) => names[i]);
        sample.query = names[sample.query];
        sample.group = names[sample.group];
        const texts = [sample.id, sample.query, sample.group, ...sample.truth, ...sample.answers];
        sample.text = texts.join("\n").toLowerCase();
        return sample;
      });
      loaded.set(number, { number, samples, chunk, kinds, task, steps: new Map() });
    }
    return loaded.get(number);
  }

  function steps(of, sample) {
    const number = Math.floor(sample.index / of.chunk);
    if (!of.steps.has(number)) of.steps.set(number, unpack(byId(`steps-${of.number}-${number}`).textContent));
    return of.steps.get(number).then(({ names, steps }) => ({ names, steps: steps[sample.index % of.chunk] }));
  }

  function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

  const pictures = new Map();
  function picture(number, told) {
    if (number < 0) return make("span", { class: "picture none" }, "no picture");
    const size = load(0).chunk, place = Math.floor(number / size);
    if (!pictures.has(place)) pictures.set(place, byId(`pictures-${place}`).textContent.split("\n"));
    const source = `data:image/webp;base64,${pictures.get(place)[number % size]}`;
    return make("span", { class: "picture" }, make("img", { src: source, alt: told, decoding: "async" }));
  }

  // ---- words ----

  const digits = (value, count) => value === null || value === undefined ? "" : value.toFixed(count);
  const signed = (value, count) => value === null ? "" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(count);
  const percent = (value) => value === null || value === undefined ? "" : `${(100 * value).toFixed(0)}%`;

  function mark(right) {
    if (right === null || right === undefined) return null;
    const sign = make("span", { "aria-hidden": "true" }, right ? "✓ " : "✗ ");
    return make("span", { class: right ? "is-right" : "is-wrong" }, sign, make("span", { class: "unseen" }, right ? "right: " : "wrong: "));
  }

  function said(called, sample, when) {
    const right = sample.right === null ? null : sample.right[when];
    const parts = [make("span", { class: "muted" }, `${called} `), mark(right), make("b", {}, sample.answers[when])];
    const sure = percent(sample.confidence[when]);
    if (sure) parts.push(make("span", { class: "muted" }, ` ${sure}`));
    return make("span", { class: "said" }, ...parts);
  }

  function card(sample, position) {
    const [kind, gain] = [part.kinds[sample.kind], sample.gain];
    const told = [make("span", { class: "kind" }, make("span", {}, kind + (sample.gated ? ", gated" : "")), make("span", {}, gain ? `reward ${signed(gain, 2)}` : ""))];
    const asked = sample.query || (sample.truth.length ? sample.truth[0] : sample.id);
    told.push(make("span", { class: "said", title: asked }, make("span", { class: "muted" }, sample.query ? "text " : sample.truth.length ? part.task === "captioning" ? "reference " : "it is " : "file "), asked));
    if (sample.kind === "unreadable") told.push(make("span", { class: "said muted" }, sample.reason));
    else told.push(said("zero-shot", sample, 0), said("adapted", sample, 1));
    const button = make("button", { type: "button", tabindex: position === current ? "0" : "-1", "data-position": position },
      picture(sample.pictures[0], ""), make("span", {}, ...told));
    return make("div", { class: "card", role: "listitem", "aria-setsize": shown.length, "aria-posinset": position + 1 }, button);
  }

  // ---- the list: only the rows in sight are there ----

  const cards = new Map();
  function draw() {
    const width = list.clientWidth, gap = 10;
    columns = Math.max(1, Math.floor((width + gap) / (LEAST + gap)));
    const wide = (width - gap * (columns - 1)) / columns, rows = Math.ceil(shown.length / columns);
    list.style.height = `${rows * height}px`;
    const top = -list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / height) - 2), last = Math.min(rows, Math.ceil((top + innerHeight) / height) + 2);
    const focused = document.activeElement?.closest?.(".card") ? Number(document.activeElement.dataset.position) : -1;
    const wanted = new Set();
    for (let i = first * columns; i < Math.min(last * columns, shown.length); i++) wanted.add(i);
    if (focused >= 0) wanted.add(focused);  // scrolling must not take the focus away
    if (!wanted.has(current) && shown.length) wanted.add(current);  // Tab finds its way into the list
    for (const [position, element] of cards) if (!wanted.has(position)) { element.remove(); cards.delete(position); }
    for (const position of [...wanted].sort((a, b) => a - b)) {
      if (!cards.has(position)) {
        const element = card(shown[position], position);
        const after = [...cards.keys()].filter((other) => other > position);
        list.insertBefore(element, after.length ? cards.get(Math.min(...after)) : null);
        cards.set(position, element);
      }
      const { style } = cards.get(position);
      style.top = `${Math.floor(position / columns) * height}px`;
      style.left = `${(position % columns) * (wide + gap)}px`;
      style.width = `${wide}px`;
    }
  }

  let asked = false;
  function drawSoon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  }

  function choose() {
    const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const found = part.samples.filter((sample) => words.every((word) => sample.text.includes(word)));
    const counts = { all: found.length };
    for (const sample of found) counts[sample.kind] = (counts[sample.kind] ?? 0) + 1;
    for (const button of byId("filters").children) {
      const kind = button.dataset.kind;
      button.lastElementChild.textContent = ` ${(counts[kind] ?? 0).toLocaleString("en")}`;
      button.setAttribute("aria-pressed", String(kind === filter));
      button.disabled = !counts[kind] && kind !== filter;
    }
    shown = filter === "all" ? found : found.filter((sample) => sample.kind === filter);
    const order = SORTS[sort.value][1];
    if (order) shown = [...shown].sort(order);
    byId("count").textContent = `${shown.length.toLocaleString("en")} of ${part.samples.length.toLocaleString("en")} samples`;
    for (const element of cards.values()) element.remove();
    cards.clear();
    current = 0;
    draw();
  }

  function focus(position) {
    const before = cards.get(current)?.firstElementChild;
    current = Math.min(Math.max(position, 0), shown.length - 1);
    before?.setAttribute("tabindex", "-1");
    const top = list.getBoundingClientRect().top + scrollY + Math.floor(current / columns) * height, room = 70;
    if (top < scrollY + room) scrollTo(0, top - room);
    else if (top + height > scrollY + innerHeight) scrollTo(0, top + height - innerHeight);
    draw();
    const button = cards.get(current).firstElementChild;
    button.setAttribute("tabindex", "0");
    button.focus({ preventScroll: true });
  }

  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(innerHeight / height) - 1) * columns;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey || !shown.length) return;
    event.preventDefault();
    focus(current + step);
  });
  list.addEventListener("focusin", (event) => {
    const position = Number(event.target.dataset.position);
    if (Number.isNaN(position) || position === current) return;
    cards.get(current)?.firstElementChild.setAttribute("tabindex", "-1");
    current = position;
    event.target.setAttribute("tabindex", "0");
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) open(Number(button.dataset.position));
  });

  // ---- one sample ----

  async function open(position) {
    current = opened = position;
    const sample = shown[position];
    const title = make("h2", { id: "detail-title" }, `${(position + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}: ${sample.id}`);
    const go = (told, key, to) => {
      const button = make("button", { type: "button", "data-go": key, disabled: to < 0 || to >= shown.length }, told);
      button.addEventListener("click", () => open(to));
      return button;
    };
    const close = make("button", { type: "button" }, "Close");
    close.addEventListener("click", () => detail.close());
    const bar = make("div", { class: "bar" }, title, go("← Previous", "ArrowLeft", position - 1), go("Next →", "ArrowRight", position + 1), close);
    const inside = make("div", { class: "inside" }, answers(sample));
    const key = document.activeElement?.dataset?.go;
    detail.replaceChildren(bar, inside);
    if (!detail.open) detail.showModal();
    (bar.querySelector(`[data-go="${key}"]:not(:disabled)`) ?? close).focus();
    detail.scrollTop = 0;
    if (sample.kind === "unreadable") return;
    try {
      const { names, steps: taken } = await steps(part, sample);
      if (shown[opened] === sample) inside.append(...trace(names, taken));
    } catch (error) {
      inside.append(make("p", { class: "warning" }, `The steps cannot be unpacked by this browser (${error.message}).`));
    }
  }

  function answers(sample) {
    const rows = [];
    const row = (name, ...told) => { if (told.some((t) => t)) rows.push(make("dt", {}, name), make("dd", {}, ...told)); };
    row("outcome", part.kinds[sample.kind] + (sample.gated ? ", no episode: both models agreed" : ""));
    row("text", sample.query);
    for (const [i, text] of sample.truth.entries()) row(i ? "" : sample.right === null ? "references" : "it is", text);
    if (sample.kind === "unreadable") row("reason", sample.reason);
    else {
      for (const [i, called] of ["zero-shot", "adapted"].entries()) {
        const right = sample.right === null ? null : sample.right[i];
        const sure = percent(sample.confidence[i]), reward = sample.rewards[i];
        const further = [sure && `confidence ${sure}`, reward !== null && `reward ${digits(reward, 3)}`].filter(Boolean).join(", ");
        row(called, mark(right), make("b", {}, sample.answers[i]), further ? make("span", { class: "muted" }, ` (${further})`) : "");
      }
      for (const [name, [before, after]] of Object.entries(sample.values)) row(name, `${Number(before.toPrecision(4))} → ${Number(after.toPrecision(4))}`);
      row("reward gain", signed(sample.gain, 3));
      row("seconds", sample.seconds === null ? "" : String(Number(sample.seconds.toPrecision(3))));
    }
    const images = make("div", { class: "found" });
    if (sample.pictures[1] >= 0 || sample.pictures[2] >= 0) {
      for (const [i, called] of [[1, "zero-shot"], [2, "adapted"]])
        images.append(make("figure", {}, picture(sample.pictures[i], `found: ${sample.answers[i - 1]}`), make("figcaption", { class: "small" }, mark(sample.right?.[i - 1]), called)));
    }
    return make("div", { class: "answers" },
      make("div", { class: "shown" }, picture(sample.pictures[0], sample.truth[0] ?? sample.id)),
      make("div", {}, make("dl", {}, ...rows), images.children.length ? images : null));
  }

  function trace(names, taken) {
    const sampled = taken.some(([, views]) => views.some(([, row]) => row.length));
    if (!taken.length) return [make("p", { class: "muted" }, "No steps were taken.")];
    if (!sampled) {
      const losses = taken.map(([loss]) => digits(loss, 4)).join(", ");
      const views = taken[0][1].map(([view]) => view).filter((view) => view !== null);
      return [make("h3", {}, "Steps"), make("p", {}, `Loss: ${losses}.`), views.length ? make("p", {}, `Learnt from the views ${words(views)}.`) : ""];
    }
    const most = Math.max(1e-9, ...taken.flatMap(([, views]) => views.flatMap(([, row]) => row.map(([, reward]) => reward ?? 0))));
    const told = [];
    for (const [i, [loss, views]] of taken.entries()) {
      const several = views.some(([view]) => view !== null);
      const body = make("tbody");
      for (const [view, row] of views) for (const [j, [name, reward, advantage, right]] of row.entries()) {
        const meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i", { style: `width: ${Math.max(0, 100 * (reward ?? 0) / most)}%` }));
        body.append(make("tr", {},
          several ? make("td", { class: "muted" }, j ? "" : view === 0 ? "centre" : `crop ${view}`) : null,
          make("td", { class: "name" }, mark(right), names[name]),
          make("td", { class: "n" }, reward === null ? "left out" : digits(reward, 3), reward === null ? "" : meter),
          make("td", { class: "n" }, signed(advantage, 3))));
      }
      const head = make("tr", {}, several ? make("th", { scope: "col" }, "view") : null, make("th", { scope: "col", class: "answer" }, "sampled answer"),
        make("th", { scope: "col", class: "n" }, "reward"), make("th", { scope: "col", class: "n" }, "advantage"));
      told.push(make("h3", {}, `Step ${i + 1} `, make("span", { class: "muted" }, `loss ${digits(loss, 4)}`)),
        make("div", { class: "scroll" }, make("table", { class: "steps" }, make("thead", {}, head), body)));
    }
    return told;
  }

  const words = (views) => views.map((view) => view === 0 ? "0 (the centre crop)" : view).join(", ");

  detail.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const button = detail.querySelector(`[data-go="${event.key}"]`);
    if (!button.disabled) { event.preventDefault(); button.click(); }
  });
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
  detail.addEventListener("close", () => focus(opened));  // not where the browser had the focus before

  // ---- tables that sort ----

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    for (const [column, head] of heads.entries()) head.querySelector("button")?.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const of = (row) => row.cells[column].textContent;
      const order = column ? (a, b) => Number(of(a)) - Number(of(b)) : (a, b) => of(b).localeCompare(of(a));
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => falling ? order(b, a) : order(a, b)));
    });
  }

  // ---- start ----

  function show(number) {
    for (const [i, section] of parts.entries()) section.hidden = i !== number;
    part = load(number);
    height = HEIGHTS[part.task];
    list.style.setProperty("--height", `${height - 10}px`);
    list.classList.toggle("texts", part.task !== "classification");
    const filters = ["all", ...Object.keys(part.kinds)];
    filter = "all";
    byId("filters").replaceChildren(...filters.map((kind) => {
      const button = make("button", { type: "button", "data-kind": kind }, kind === "all" ? "all" : part.kinds[kind], make("span", { class: "number" }));
      button.addEventListener("click", () => { filter = kind; choose(); });
      return button;
    }));
    const has = (key) => part.samples.some((sample) => sample[key] !== null);
    sort.replaceChildren(...SORTS.map(([name], i) => make("option", { value: i }, name)));
    for (const [i, known] of [[1, has("gain")], [2, has("gain")], [3, part.samples.some((s) => s.confidence.length)], [4, has("seconds")]])
      sort.options[i].disabled = !known;
    choose();
  }

  byId("controls").hidden = false;
  byId("choose")?.addEventListener("change", (event) => show(Number(event.target.value)));
  search.addEventListener("input", choose);
  sort.addEventListener("change", choose);
  addEventListener("scroll", drawSoon, { passive: true });
  new ResizeObserver(drawSoon).observe(list);
  show(Number(byId("choose")?.value ?? 0));
})();
