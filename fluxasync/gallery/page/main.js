// The page: controls, drawing near the window, keyboard.

function byId(id) {
  return document.getElementById(id);
}

class Page {
  constructor(run) {
    this.run = run;
    this.cards = new Map(run.cards.map((card) => [card.key, card]));
    this.view = "pictures";
    this.status = "";
    this.tiles = new Map(); // on the page now, by key of the card
    this.headings = new Map();
    this.current = null; // the tile's spot that arrows start from
    this.main = byId("pictures");
    this.detail = new Detail((card) => this.returnTo(card));
    byId("order").value = run.live ? "newest" : "given";
    this.listen();
    this.update();
    if (run.live) this.follow();
  }

  listen() {
    byId("search").addEventListener("input", () => this.again());
    for (const id of ["model", "account", "order"]) byId(id).addEventListener("change", () => this.again());
    for (const id of ["rows", "columns"]) {
      byId(id).addEventListener("change", () => {
        this.chosen = { rows: byId("rows").value, columns: byId("columns").value };
        this.again();
      });
    }
    byId("as-pictures").addEventListener("click", () => this.look("pictures"));
    byId("as-comparison").addEventListener("click", () => this.look("comparison"));
    this.main.addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) this.open(this.spots.find((spot) => spot.card.key === tile.dataset.key));
    });
    document.addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => {
      if (this.main.clientWidth !== this.width) this.arrange();
    }).observe(this.main);
  }

  look(view) {
    this.view = view;
    byId("as-pictures").setAttribute("aria-pressed", view === "pictures");
    byId("as-comparison").setAttribute("aria-pressed", view !== "pictures");
    this.again();
  }

  again() {
    this.current = null;
    scrollTo(0, 0);
    this.update();
  }

  // --- filters -------------------------------------------------------------------------------

  update() {
    const all = [...this.cards.values()].sort(ORDERS[byId("order").value]);
    this.offer("model", "All models", all);
    this.offer("account", "All accounts", all);
    const wanted = ["search", "model", "account"].map((id) => byId(id).value);
    const within = all.filter(finder(...wanted));
    this.offerStatuses(within);
    this.found = within.filter((card) => !this.status || card.status === this.status);
    this.say(all);
    this.axes = axesOf(this.found);
    // images that differ in everything have no axis in common
    const isTable = axesOf(all).some((axis) => axis.values.length < all.length);
    byId("views").hidden = !isTable && this.view === "pictures";
    this.offerAxes();
    this.arrange();
  }

  // A choice of one fact's values, where the cards have several.
  offer(fact, every, all) {
    const names = [...new Set(all.map((card) => card[fact]).filter(Boolean))].sort();
    choices(byId(fact), [["", every], ...names.map((name) => [name, name])]);
    byId(fact).hidden = names.length < 2;
  }

  offerStatuses(within) {
    const counts = new Map([["", within.length]]);
    const present = new Set([...this.cards.values()].map((card) => card.status));
    for (const status of STATUSES) if (present.has(status)) counts.set(status, 0);
    for (const card of within) counts.set(card.status, counts.get(card.status) + 1);
    if (!counts.has(this.status)) this.status = "";
    const made = [...counts].map(([status, count]) => {
      const chip = element("button", "", (WORDS[status] || "All") + " " + count.toLocaleString());
      chip.type = "button";
      chip.setAttribute("aria-pressed", status === this.status);
      chip.addEventListener("click", () => {
        this.status = status;
        this.again();
      });
      return chip;
    });
    byId("statuses").replaceChildren(...made);
    byId("statuses").hidden = counts.size < 3;
  }

  offerAxes() {
    const isOpen = this.view === "comparison" && this.axes.length > 0;
    byId("axes").hidden = !isOpen;
    byId("order").hidden = isOpen;
    if (!isOpen) return;
    const names = this.axes.map((axis) => [axis.name, axis.name]);
    choices(byId("rows"), [...names, ["", "none"]]);
    choices(byId("columns"), [...names, ["", "none"]]);
    const named = (name) => this.axes.find((axis) => axis.name === name) || null;
    const best = this.chosen ? null : bestAxes(this.axes, this.found);
    this.rows = best ? best.rows : named(this.chosen.rows);
    this.columns = best ? best.columns : named(this.chosen.columns);
    if (this.rows === this.columns) this.columns = null;
    byId("rows").value = this.rows ? this.rows.name : "";
    byId("columns").value = this.columns ? this.columns.name : "";
  }

  say(all) {
    const saved = all.filter((card) => card.status === "saved").length;
    const parts = [saved.toLocaleString() + (saved === 1 ? " image" : " images")];
    if (this.found.length !== all.length) {
      parts.unshift(this.found.length.toLocaleString() + " shown of " + all.length.toLocaleString());
      parts.pop();
    }
    if (this.run.simulated) parts.push("simulated");
    byId("totals").textContent = parts.join(" · ");
    byId("nothing").hidden = this.found.length > 0;
    byId("nothing").textContent = all.length
      ? "Nothing matches. Esc clears the search."
      : this.run.live ? "The first image appears here when it is saved." : "No images yet.";
  }

  // --- drawing -------------------------------------------------------------------------------

  arrange() {
    this.width = this.main.clientWidth;
    const gap = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--gap"));
    const isTable = this.view === "comparison" && this.axes.length > 0;
    if (isTable) {
      const table = tableOf(this.found, this.rows, this.columns);
      this.layout = compared(table, this.columns, this.width, gap);
    } else {
      this.layout = justified(this.found, this.width, this.width < 600 ? 170 : 270, gap);
    }
    this.main.classList.toggle("comparing", isTable);
    this.spots = this.layout.rows.flatMap((row) => row.tiles);
    this.list = this.spots.flatMap((spot) => spot.cards || [spot.card]);
    for (const child of [...this.main.children]) child.remove();
    this.tiles.clear();
    this.headings.clear();
    this.main.style.height = this.layout.height + "px";
    this.draw();
  }

  soon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  draw() {
    byId("bar").classList.toggle("lifted", scrollY > 4);
    const top = scrollY - this.main.offsetTop;
    const near = this.layout.rows.slice(
      rowAt(this.layout.rows, top - innerHeight),
      rowAt(this.layout.rows, top + 2 * innerHeight) + 1,
    );
    const wanted = new Map(near.flatMap((row) => row.tiles.map((spot) => [spot.card.key, { row, spot }])));
    for (const [key, tile] of this.tiles) {
      if (!wanted.has(key)) {
        tile.remove();
        this.tiles.delete(key);
      }
    }
    for (const [key, { row, spot }] of wanted) {
      if (!this.tiles.has(key)) this.tiles.set(key, this.placed(row, spot));
    }
    this.drawHeadings(near);
    this.markCurrent();
  }

  placed(row, spot) {
    const tile = tileOf(spot);
    const top = row.y + (row.heading === undefined ? 0 : HEADING);
    put(tile, { left: spot.x, top, width: spot.width, height: row.height });
    tile.tabIndex = -1;
    this.main.append(tile);
    return tile;
  }

  drawHeadings(near) {
    const wanted = new Set(near.filter((row) => row.heading !== undefined));
    for (const [row, made] of this.headings) {
      if (!wanted.has(row)) {
        made.remove();
        this.headings.delete(row);
      }
    }
    for (const row of wanted) {
      if (this.headings.has(row)) continue;
      const made = element("div", "row");
      const text = element("h2", "", this.rows ? labelOf(this.rows, row.heading) : "All");
      text.dir = "auto";
      text.title = row.heading;
      put(text, { maxWidth: this.width });
      made.append(text);
      put(made, { top: row.y, width: this.layout.width });
      this.main.append(made);
      this.headings.set(row, made);
    }
  }

  markCurrent() {
    const first = this.current && this.tiles.get(this.current.card.key);
    for (const tile of this.tiles.values()) tile.tabIndex = -1;
    const tile = first || this.tiles.values().next().value;
    if (tile) tile.tabIndex = 0;
  }

  // --- keyboard ------------------------------------------------------------------------------

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.detail.isOpen) {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) this.detail.step(by);
      return;
    }
    const isTyping = event.target.matches("input, select");
    if (event.key === "Escape") return this.clear();
    if (event.target.id === "search" && ["Enter", "ArrowDown"].includes(event.key)) {
      event.preventDefault();
      return this.move("Home");
    }
    if (isTyping) return;
    if (event.key === "/") {
      event.preventDefault();
      byId("search").focus();
      byId("search").select();
    } else if (event.key === "Enter" && document.activeElement === document.body) {
      if (this.current) this.open(this.current);
    } else if (/^(Arrow|Home$|End$)/.test(event.key) && this.spots.length) {
      event.preventDefault();
      this.move(event.key);
    }
  }

  clear() {
    byId("search").blur();
    if (!byId("search").value) return;
    byId("search").value = "";
    this.again();
  }

  move(key) {
    const at = this.current ? this.spots.indexOf(this.current) : -1;
    if (at < 0 || key === "Home" || key === "End") {
      this.goTo(this.spots[key === "End" ? this.spots.length - 1 : 0]);
    } else if (key === "ArrowLeft" || key === "ArrowRight") {
      this.goTo(this.spots[at + (key === "ArrowLeft" ? -1 : 1)]);
    } else {
      const rows = this.layout.rows;
      const row = rows.findIndex((one) => one.tiles.includes(this.current));
      const to = rows[row + (key === "ArrowUp" ? -1 : 1)];
      if (to) this.goTo(nearest(to, this.current));
    }
  }

  goTo(spot) {
    if (!spot) return;
    this.current = spot;
    const row = this.layout.rows.find((one) => one.tiles.includes(spot));
    const top = this.main.offsetTop + row.y;
    const bar = getComputedStyle(byId("bar")).position === "sticky" ? byId("bar").offsetHeight : 0;
    const height = row.height + (row.heading === undefined ? 0 : HEADING);
    if (top < scrollY + bar) scrollTo(0, top - bar - 8);
    else if (top + height > scrollY + innerHeight) scrollTo(0, top + height - innerHeight + 8);
    this.draw();
    this.tiles.get(spot.card.key).focus({ preventScroll: true, focusVisible: true });
    if (this.main.scrollWidth > this.width) {
      this.tiles.get(spot.card.key).scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  open(spot) {
    if (!spot) return;
    this.current = spot;
    this.detail.open(this.list, spot.card);
  }

  returnTo(card) {
    this.goTo(this.spots.find((spot) => spot.card === card || (spot.cards || []).includes(card)));
  }

  // --- an active run -------------------------------------------------------------------------

  follow() {
    const live = byId("live");
    const say = (text, isOn) => {
      server.isGone = !isOn;
      live.textContent = text;
      live.classList.toggle("on", isOn);
      live.hidden = false;
    };
    say("live", true);
    const events = new EventSource("events?from=" + this.run.at);
    events.addEventListener("open", () => say("live", true));
    events.addEventListener("error", () => say("waiting for the run", false));
    events.addEventListener("cards", (event) => this.take(JSON.parse(event.data)));
    events.addEventListener("end", () => {
      events.close();
      say("the run has ended", false);
    });
  }

  take(cards) {
    for (const card of cards) this.cards.set(card.key, card);
    if (this.isTaking) return;
    this.isTaking = true;
    requestAnimationFrame(() => {
      this.isTaking = false;
      this.keepPlace(() => this.update());
    });
  }

  // Images that arrive above keep the visible ones in place.
  keepPlace(change) {
    const top = scrollY - this.main.offsetTop;
    const row = top > 0 ? this.layout.rows[rowAt(this.layout.rows, top)] : null;
    const card = row && row.tiles[0].card.key;
    const focused = document.activeElement.closest(".tile");
    const key = focused ? focused.dataset.key : this.current && this.current.card.key;
    change();
    this.current = this.spots.find((spot) => spot.card.key === key) || null;
    const now = row && this.layout.rows.find((one) => one.tiles.some((tile) => tile.card.key === card));
    if (now) scrollBy(0, now.y - row.y);
    this.draw();
    if (focused && this.current) {
      const tile = this.tiles.get(key);
      if (tile) tile.focus({ preventScroll: true });
    }
  }
}

function choices(select, pairs) {
  const wanted = pairs.map(([value]) => value).join("\0");
  if (select.dataset.values === wanted) return;
  const before = select.value;
  select.dataset.values = wanted;
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  if (pairs.some(([value]) => value === before)) select.value = before;
}

new Page(JSON.parse(byId("run").textContent));
