// The controls above the images: what is searched, filtered and sorted by.

const FEW = 8; // values of a column that has chips
const MOST_FACETS = 6;
const PICK_WORDS = { picked: "♥ Picked", rejected: "✕ Rejected", undecided: "Undecided" };

function chipOf(text, isOn, onClick) {
  const chip = element("button", "", text);
  chip.type = "button";
  chip.setAttribute("aria-pressed", isOn);
  chip.addEventListener("click", onClick);
  return chip;
}

function countsOf(axis, cards) {
  const counts = new Map(axis.values.map((value) => [value, 0]));
  for (const card of cards) counts.set(axis.of(card), counts.get(axis.of(card)) + 1);
  return counts;
}

function choices(select, pairs) {
  const wanted = pairs.map((pair) => pair.join("\0")).join("\0");
  if (select.dataset.values === wanted) return;
  const before = select.value;
  select.dataset.values = wanted;
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  if (pairs.some(([value]) => value === before)) select.value = before;
}

class Filters {
  constructor(picks, onChange) {
    this.picks = picks;
    this.onChange = onChange;
    this.status = "";
    this.pick = "";
    this.columns = new Map(); // name of a column → the wanted values
    this.order = "given";
    this.isDown = false;
    this.axes = []; // of all cards
    this.facets = [];
    byId("search").addEventListener("input", () => onChange("typed"));
    for (const id of ["model", "account"]) byId(id).addEventListener("change", () => onChange());
    byId("order").addEventListener("change", () => {
      this.order = byId("order").value;
      this.isDown = false;
      onChange();
    });
    byId("direction").addEventListener("click", () => {
      this.isDown = !this.isDown;
      onChange();
    });
  }

  // --- the address -------------------------------------------------------------------------------

  write(query) {
    const given = {
      q: byId("search").value, model: byId("model").value, account: byId("account").value,
      status: this.status, pick: this.pick, sort: this.order === this.usual ? "" : this.order,
      down: this.isDown ? "1" : "",
    };
    for (const [name, value] of Object.entries(given)) if (value) query.set(name, value);
    for (const [name, values] of this.columns) {
      for (const value of values) query.append("is." + name, value);
    }
  }

  read(query) {
    byId("search").value = query.get("q") || "";
    for (const id of ["model", "account"]) byId(id).value = query.get(id) || "";
    for (const id of ["model", "account"]) if (byId(id).selectedIndex < 0) byId(id).value = "";
    this.status = query.get("status") || "";
    this.pick = query.get("pick") || "";
    this.order = query.get("sort") || this.usual;
    this.isDown = query.has("down");
    this.columns.clear();
    for (const name of new Set(query.keys())) {
      if (name.startsWith("is.")) this.columns.set(name.slice(3), new Set(query.getAll(name)));
    }
  }

  // --- what matches ------------------------------------------------------------------------------

  compare() {
    if (this.order in ORDERS) return ORDERS[this.order][1];
    const axis = this.axes.find((one) => "by " + one.name === this.order);
    const ascending = axis ? byAxis(axis) : inOrder;
    return this.isDown ? (a, b) => ascending(b, a) : ascending;
  }

  // Everything but state and pick, whose chips count what is left.
  matching() {
    const [search, model, account] = ["search", "model", "account"].map((id) => byId(id).value);
    const find = finder(search);
    const columns = [...this.columns]
      .map(([name, values]) => [this.axes.find((axis) => axis.name === name), values])
      .filter(([axis]) => axis);
    return (card) => {
      if (model && card.model !== model) return false;
      if (account && card.account !== account) return false;
      return columns.every(([axis, values]) => values.has(axis.of(card))) && find(card);
    };
  }

  isWanted(card) {
    if (this.status && card.status !== this.status) return false;
    return !this.pick || this.picks.stateOf(card) === this.pick;
  }

  clear() {
    const isEmpty = !byId("search").value && !this.status && !this.pick && !this.columns.size;
    byId("search").value = "";
    this.status = this.pick = "";
    this.columns.clear();
    return !isEmpty;
  }

  // --- what is offered ---------------------------------------------------------------------------

  // Choices that depend on all cards.
  know(all, axes) {
    this.axes = axes;
    this.offerValues("model", "All models", all);
    this.offerValues("account", "All accounts", all);
    const columns = axes.map((axis) => ["by " + axis.name, "By " + axis.name]);
    const orders = Object.entries(ORDERS)
      .filter(([name]) => name !== "slowest" || all.some(secondsOf))
      .map(([name, [text]]) => [name, text]);
    choices(byId("order"), [...orders, ...columns]);
    this.facets = axes
      .filter((axis) => !["prompt", "model"].includes(axis.name))
      .filter((axis) => axis.values.length <= FEW && axis.values.length < all.length)
      .sort((a, b) => Boolean(b.isColumn) - Boolean(a.isColumn))
      .slice(0, MOST_FACETS)
      .map((axis) => ({ axis, counts: countsOf(axis, all) }));
    this.present = new Set(all.map((card) => card.status));
  }

  // What is chosen of them.
  offer() {
    byId("order").value = this.order;
    if (byId("order").selectedIndex < 0) byId("order").value = this.order = this.usual;
    byId("direction").hidden = this.order in ORDERS;
    byId("direction").textContent = this.isDown ? "↓" : "↑";
    byId("direction").setAttribute("aria-label", this.isDown ? "Descending" : "Ascending");
    this.offerFacets();
  }

  offerValues(fact, every, all) {
    const names = [...new Set(all.map((card) => card[fact]).filter(Boolean))].sort();
    choices(byId(fact), [["", every], ...names.map((name) => [name, name])]);
    byId(fact).hidden = names.length < 2;
  }

  offerFacets() {
    const made = this.facets.map(({ axis, counts }) => {
      const group = element("div", "facet");
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", axis.name);
      const wanted = this.columns.get(axis.name) || new Set();
      const chips = axis.values.map((value) => {
        const chip = chipOf(value === "" ? "none" : value, wanted.has(value), () => {
          this.toggle(axis.name, value);
          this.onChange();
        });
        chip.title = axis.name + " " + value + ": " + counts.get(value).toLocaleString();
        return chip;
      });
      group.append(element("span", "name", axis.name), ...chips);
      return group;
    });
    byId("facets").replaceChildren(...made);
    byId("facets").hidden = !made.length;
  }

  toggle(name, value) {
    const wanted = this.columns.get(name) || new Set();
    if (!wanted.delete(value)) wanted.add(value);
    if (wanted.size) this.columns.set(name, wanted);
    else this.columns.delete(name);
  }

  // Chips that count what the other filters leave.
  count(within) {
    const states = new Map([["", within.length]]);
    for (const status of STATUSES) if (this.present.has(status)) states.set(status, 0);
    const picks = new Map(Object.keys(PICK_WORDS).map((state) => [state, 0]));
    for (const card of within) {
      states.set(card.status, states.get(card.status) + 1);
      const state = this.picks.stateOf(card);
      if (state) picks.set(state, picks.get(state) + 1);
    }
    if (!states.has(this.status)) this.status = "";
    if (!(this.pick in PICK_WORDS)) this.pick = "";
    const chips = (field, words, counts) =>
      [...counts].map(([value, count]) =>
        chipOf((words[value] || "All") + " " + count.toLocaleString(), this[field] === value, () => {
          this[field] = this[field] === value ? "" : value;
          this.onChange();
        }));
    byId("statuses").replaceChildren(...chips("status", WORDS, states));
    byId("statuses").hidden = states.size < 3;
    byId("decisions").replaceChildren(...chips("pick", PICK_WORDS, picks));
    byId("decisions").hidden = this.picks.isEmpty && !this.pick;
    byId("download").hidden = byId("decisions").hidden || (this.picks.isServed && !this.picks.problem);
  }
}
