// The page: what is shown, the keyboard, the address, and an active run.

const USUAL_SIZE = 270; // height of an image; narrow screens have less
const VIEWS = ["pictures", "comparison", "failures"];

class Page {
  constructor(run) {
    this.run = run;
    this.cards = new Map(run.cards.map((card) => [card.key, card]));
    this.view = "pictures";
    this.first = null; // A of a comparison of two
    this.picks = new Picks(run, (problem) => this.notice(problem));
    this.filters = new Filters(this.picks, (how) => this.again(how));
    this.filters.order = this.filters.usual = run.live ? "newest" : "given";
    this.overlay = new Overlay(this.picks, (cards, picked) => this.decide(cards, picked));
    this.main = byId("pictures");
    this.grid = new Grid(this.main, {
      stateOf: (card) => this.picks.stateOf(card),
      letterOf: (card) => (card === this.first ? "A" : ""),
      headingOf: (row) => this.headingOf(row),
    });
    this.detail = new Detail(this);
    this.address = new Address((place) => this.goTo(place));
    this.listen();
    this.changed();
    this.goTo(this.address.read());
    if (run.picks_problem) this.notice(run.picks_problem);
    if (run.live) this.follow();
  }

  listen() {
    for (const id of ["rows", "columns"]) {
      byId(id).addEventListener("change", () => {
        this.chosen = { rows: byId("rows").value, columns: byId("columns").value };
        this.again();
      });
    }
    for (const view of VIEWS) byId("as-" + view).addEventListener("click", () => this.look(view));
    byId("clear").addEventListener("click", () => {
      this.filters.read(new URLSearchParams());
      this.again();
    });
    byId("download").addEventListener("click", () => this.picks.download());
    const size = byId("size");
    size.value = stored("fluxasync-size") || USUAL_SIZE;
    size.addEventListener("input", () => {
      stored("fluxasync-size", size.value);
      this.grid.keepPlace(() => this.arrange());
    });
    this.main.addEventListener("click", (event) => this.onClick(event));
    document.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => {
      if (this.main.clientWidth !== this.width) this.arrange();
    }).observe(this.main);
  }

  // --- what is shown -----------------------------------------------------------------------------

  // The cards changed.
  changed() {
    this.all = [...this.cards.values()];
    this.allAxes = axesOf(this.all);
    this.names = new Names(this.all);
    this.sorted = null;
    this.filters.know(this.all, this.allAxes);
    this.told = aboutRun(this.run, this.all);
    this.failures = this.all.filter((card) => card.status !== "saved").length;
    this.update();
    prepareSearch(this.all);
  }

  // The user chose something else to look at.
  again(how) {
    this.grid.current = null;
    this.first = null;
    scrollTo(0, 0);
    this.update();
    // one step for Back, however many letters are typed
    if (how === "typed" && this.isTyping) this.address.replace("", this.query());
    else this.address.push("", this.query());
    this.isTyping = how === "typed";
  }

  look(view) {
    this.view = view;
    this.again();
  }

  update() {
    const { filters } = this;
    filters.offer();
    const order = filters.order + filters.isDown;
    if (!this.sorted || this.sortedBy !== order) this.sorted = this.all.sort(filters.compare());
    this.sortedBy = order;
    this.within = this.sorted.filter(filters.matching());
    filters.count(this.within);
    this.found = this.within.filter((card) => filters.isWanted(card));
    byId("as-failures").hidden = !this.failures;
    byId("as-failures").textContent = "Failures " + this.failures.toLocaleString();
    if (this.view === "failures" && !this.failures) this.view = "pictures";
    if (this.view === "failures") this.found = this.found.filter((card) => card.status !== "saved");
    this.captions = new Captions(this.found);
    this.axes = this.view === "comparison" ? axesOf(this.found) : [];
    // images that differ in everything have no axis in common
    const isTable = this.allAxes.some((axis) => axis.values.length < this.all.length);
    byId("as-comparison").hidden = !isTable && this.view !== "comparison";
    byId("views").hidden = byId("as-comparison").hidden && byId("as-failures").hidden;
    for (const view of VIEWS) byId("as-" + view).setAttribute("aria-pressed", view === this.view);
    this.say();
    this.offerAxes();
    this.arrange();
  }

  offerAxes() {
    const isOpen = this.view === "comparison" && this.axes.length > 0;
    byId("axes").hidden = !isOpen;
    byId("sorting").hidden = isOpen || this.view === "failures";
    byId("size").hidden = this.view === "failures";
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

  say() {
    const parts = [...this.told];
    const isFiltered = this.found.length !== this.all.length;
    if (isFiltered) parts[0] = this.found.length.toLocaleString() + " shown of " + this.all.length.toLocaleString();
    byId("totals").textContent = parts.join(" · ");
    byId("totals").title = parts.join(" · ");
    const prompt = this.view === "pictures" ? this.captions.onlyPrompt : "";
    byId("only-prompt").textContent = prompt;
    byId("only-prompt").hidden = !prompt;
    byId("nothing").hidden = this.found.length > 0;
    byId("clear").hidden = !this.all.length;
    byId("nothing-text").textContent = this.all.length
      ? "Nothing matches."
      : this.run.live ? "The first image appears here when it is saved." : "No images yet.";
    const progress = this.run.live && this.run.total ? progressOf(this.run.total, this.all) : null;
    byId("progress").hidden = !progress;
    if (progress) {
      byId("progress-bar").value = progress.share;
      byId("progress-text").textContent = progress.text;
    }
  }

  notice(text) {
    byId("notice").textContent = text;
    byId("notice").hidden = !text;
    this.filters.count(this.within);
  }

  arrange() {
    this.width = this.main.clientWidth;
    const gap = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--gap"));
    const size = byId("size").value * (this.width < 600 ? 0.63 : 1);
    const isTable = this.view === "comparison" && this.axes.length > 0;
    let layout;
    if (isTable) {
      const table = tableOf(this.found, this.rows, this.columns);
      const isPicked = (card) => this.picks.of(card) === true;
      layout = compared(table, this.columns, this.width, gap, size, isPicked);
    } else if (this.view === "failures") {
      layout = listed(this.found, this.width, causeOf);
    } else {
      layout = justified(this.found, this.width, size, gap);
    }
    this.main.classList.toggle("comparing", isTable);
    this.grid.show(layout, this.captions, isTable);
  }

  headingOf(row) {
    if (this.view === "failures") return { title: row.heading, note: "" };
    const best = row.tiles.filter((spot) => this.picks.of(spot.card) === true);
    const said = best.length > 1 ? counted(best.length, "pick") : best.length ? best[0].caption || "picked" : "";
    return {
      title: this.rows ? labelOf(this.rows, row.heading) : "All",
      note: said ? "♥ " + said : "",
    };
  }

  // --- choosing ----------------------------------------------------------------------------------

  decide(cards, picked) {
    this.picks.decide(cards, picked);
    if (this.filters.pick) this.grid.keepPlace(() => this.update());
    else {
      this.filters.count(this.within);
      this.grid.markAll();
    }
  }

  // Picks one image and rejects the others of its row; a second time takes that back.
  bestOfRow(spot) {
    const others = this.grid.rowOf(spot).tiles.map((tile) => tile.card).filter((card) => card !== spot.card);
    const isBest = this.picks.of(spot.card) === true &&
      others.every((card) => this.picks.of(card) === false || !canBePicked(card));
    this.picks.decide(others, isBest ? null : false);
    this.decide([spot.card], isBest ? null : true);
  }

  // The first image of two is A; the second one is laid over it.
  against(card) {
    if (!largest(card)) return;
    const first = this.first;
    this.first = first ? null : card;
    this.grid.markAll();
    if (first && first !== card) {
      this.overlay.open(first, card, (one) => {
        const { facts, prompt } = this.captions.of(one);
        return [facts, prompt].filter(Boolean).join("  ");
      });
    }
  }

  onClick(event) {
    const tile = event.target.closest(".tile");
    const spot = tile && this.grid.spotOf(tile.dataset.key);
    if (!spot) return;
    if (event.target.closest(".heart")) this.toggle(spot, true);
    else if (event.target.closest(".best")) this.bestOfRow(spot);
    else if (event.shiftKey) this.against(spot.card);
    else this.open(spot);
  }

  toggle(spot, picked) {
    this.grid.current = spot;
    this.decide([spot.card], this.picks.of(spot.card) === picked ? null : picked);
  }

  // --- keyboard ----------------------------------------------------------------------------------

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.overlay.isOpen) return this.overlay.onKey(event.key);
    if (this.detail.isOpen) return this.detail.onKey(event);
    if (event.key === "Escape") return this.escape();
    if (event.target.id === "search" && ["Enter", "ArrowDown"].includes(event.key)) {
      event.preventDefault();
      return this.grid.move("Home");
    }
    if (event.target.matches("input, select, textarea")) return;
    const isTile = event.target.matches(".tile");
    const spot = isTile ? this.grid.spotOf(event.target.dataset.key) : null;
    const current = spot || (document.activeElement === document.body ? this.grid.current : null);
    const choose = {
      p: () => this.toggle(current, true), x: () => this.toggle(current, false),
      u: () => this.decide([current.card], null), a: () => this.against(current.card),
      b: () => this.grid.isTable && this.bestOfRow(current),
      Enter: () => this.open(current), " ": () => this.open(current),
    }[event.key];
    if (choose && current) {
      event.preventDefault();
      choose();
    } else if (event.key === "/") {
      event.preventDefault();
      byId("search").focus();
      byId("search").select();
    } else if (event.key === "+" || event.key === "-") {
      const size = byId("size");
      if (event.key === "+") size.stepUp(2);
      else size.stepDown(2);
      size.dispatchEvent(new Event("input"));
    } else if (/^(Arrow|Home$|End$)/.test(event.key) && this.grid.spots.length) {
      event.preventDefault();
      this.grid.move(event.key);
    }
  }

  escape() {
    byId("search").blur();
    if (this.first) {
      this.first = null;
      this.grid.markAll();
    } else if (byId("search").value) {
      byId("search").value = "";
      this.again();
    }
  }

  // --- the address -------------------------------------------------------------------------------

  query() {
    const query = new URLSearchParams();
    this.filters.write(query);
    if (this.view !== "pictures") query.set("view", this.view);
    if (this.view === "comparison" && this.chosen) {
      query.set("rows", this.chosen.rows);
      query.set("columns", this.chosen.columns);
    }
    return query;
  }

  // Shows what an address says: at the start, and after Back or Forward.
  goTo({ image, query }, isClosed) {
    if (isClosed) return; // the image was closed already, and nothing else changed
    if (query.toString() !== this.query().toString()) {
      this.filters.read(query);
      this.view = VIEWS.includes(query.get("view")) ? query.get("view") : "pictures";
      this.chosen = query.has("rows") && { rows: query.get("rows"), columns: query.get("columns") };
      this.grid.current = null;
      this.update();
    }
    const card = image && this.names.find(image);
    if (card) this.detail.open(this.grid.list.includes(card) ? this.grid.list : [card], card);
    else if (this.detail.isOpen) this.detail.dialog.close();
  }

  open(spot) {
    this.grid.current = spot;
    this.address.push(this.names.of(spot.card), this.query());
    this.detail.open(this.grid.list, spot.card);
  }

  moved(card) {
    this.address.replace(this.names.of(card), this.query());
  }

  closed(card) {
    this.address.leave(this.query());
    this.grid.goTo(this.grid.holding(card) || this.grid.current);
  }

  // --- an active run -----------------------------------------------------------------------------

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
    events.addEventListener("total", (event) => {
      const { total, simulated } = JSON.parse(event.data);
      this.run.total = total;
      this.run.simulated = this.run.simulated || simulated;
      this.told = aboutRun(this.run, this.all);
      this.say();
    });
    events.addEventListener("end", () => {
      events.close();
      this.run.total = 0;
      byId("progress").hidden = true;
      say("the run has ended", false);
    });
  }

  take(cards) {
    for (const card of cards) this.cards.set(card.key, card);
    if (this.isTaking) return;
    this.isTaking = true;
    requestAnimationFrame(() => {
      this.isTaking = false;
      this.grid.keepPlace(() => this.changed());
    });
  }
}

new Page(JSON.parse(byId("run").textContent));
