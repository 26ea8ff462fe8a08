// One large image with all its facts; arrow keys step through the list it was opened from.

function seconds(value) {
  return (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)) + " s";
}

function bytes(value) {
  return value >= 1e6 ? (value / 1e6).toFixed(1) + " MB" : Math.ceil(value / 1e3) + " kB";
}

function factsOf(card) {
  const facts = [["Model", card.model], ["Seed", card.seed]];
  for (const [name, value] of Object.entries(card.parameters || {})) {
    if (card[name] !== value) facts.push([name, shown(value)]);
  }
  if (card.width) facts.push(["Size", card.width + " × " + card.height]);
  if (card.bytes) facts.push(["File", card.file_name + ", " + bytes(card.bytes)]);
  facts.push(["URL", card.url]);
  if (card.cost !== undefined) facts.push(["Cost", dollars(card.cost)]);
  facts.push(["Charge", chargeOf(card)], ["Prompt used", card.prompt_used]);
  for (const [name, value] of Object.entries(card.extras || {})) facts.push([name, shown(value)]);
  if (card.finished_at) facts.push(["Finished", new Date(card.finished_at).toLocaleString()]);
  facts.push(["From", card.where], ["Job", card.job_id], ["Provider", card.provider]);
  facts.push(["Account", card.account]);
  return facts.filter(([, value]) => value !== undefined && value !== "");
}

function timingsOf(card) {
  return Object.entries(card.timings || {})
    .filter(([, value]) => typeof value === "number")
    .map(([name, value]) =>
      [name[0].toUpperCase() + name.slice(1), name === "polls" ? value : seconds(value)]);
}

function fill(list, pairs) {
  list.replaceChildren(
    ...pairs.flatMap(([name, value]) => {
      const said = element("dd", "", shown(value));
      said.dir = "auto";
      return [element("dt", "", name), said];
    }),
  );
}

class Detail {
  // `page`: {picks, decide(cards, picked), moved(card), closed(card), against(card)}
  constructor(page) {
    this.page = page;
    this.dialog = byId("detail");
    this.cards = [];
    this.at = 0;
    this.dialog.addEventListener("close", () => page.closed(this.card));
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("close").addEventListener("click", () => this.dialog.close());
    byId("detail-picture").addEventListener("error", () => this.absent(this.problem()));
    byId("pick").addEventListener("click", () => this.decide(true));
    byId("reject").addEventListener("click", () => this.decide(false));
    byId("against").addEventListener("click", () => page.against(this.card));
    copyOnClick(byId("copy-prompt"), () => shown(this.card.prompt));
    copyOnClick(byId("copy-seed"), () => shown(this.card.seed));
    copyOnClick(byId("copy-command"), () => commandOf(this.card));
  }

  get isOpen() {
    return this.dialog.open;
  }

  get card() {
    return this.cards[this.at];
  }

  open(cards, card) {
    this.cards = cards;
    this.at = Math.max(cards.indexOf(card), 0);
    this.show();
    if (this.isOpen) return;
    this.dialog.showModal();
    byId("close").focus({ preventScroll: true, focusVisible: false });
  }

  step(by) {
    const to = this.at + by;
    if (to < 0 || to >= this.cards.length) return;
    this.at = to;
    this.show();
    this.page.moved(this.card);
  }

  // A second time takes the decision back.
  decide(picked) {
    const { card, page } = this;
    page.decide([card], page.picks.of(card) === picked ? null : picked);
    this.mark();
  }

  onKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const picked = { p: true, x: false }[event.key.toLowerCase()];
    if (by) this.step(by);
    else if (event.key === "u") this.page.decide([this.card], null);
    else if (event.key === "a") this.page.against(this.card);
    else if (picked !== undefined && event.shiftKey) {
      this.page.decide([this.card], picked);
      this.step(1);
    } else if (picked !== undefined) this.decide(picked);
    this.mark();
  }

  show() {
    const { card } = this;
    const picture = byId("detail-picture");
    const status = byId("detail-status");
    byId("detail-absent").hidden = true;
    picture.hidden = !largest(card);
    picture.alt = card.prompt || "";
    if (largest(card)) picture.src = largest(card);
    else this.absent(card.status === "saved" ? "The file is missing." : WORDS[card.status]);
    status.textContent = card.status === "saved" ? "" : WORDS[card.status];
    status.hidden = card.status === "saved";
    status.className = className(card);
    byId("detail-prompt").textContent = card.prompt || card.where || "";
    byId("detail-message").textContent = card.message || "";
    byId("detail-message").hidden = !card.message;
    fill(byId("facts"), factsOf(card));
    fill(byId("timings"), timingsOf(card));
    byId("timings-title").hidden = !timingsOf(card).length;
    byId("file").hidden = !card.file;
    if (card.file) byId("file").href = card.file;
    byId("copy-prompt").hidden = byId("copy-command").hidden = !card.prompt;
    byId("copy-seed").hidden = card.seed === undefined;
    byId("place").textContent = this.at + 1 + " of " + this.cards.length;
    byId("previous").disabled = this.at === 0;
    byId("next").disabled = this.at === this.cards.length - 1;
    this.dialog.scrollTop = 0;
    this.mark();
    this.preload();
  }

  mark() {
    const { picks } = this.page;
    byId("choose").hidden = !canBePicked(this.card);
    byId("pick").setAttribute("aria-pressed", picks.of(this.card) === true);
    byId("reject").setAttribute("aria-pressed", picks.of(this.card) === false);
    const first = this.page.first;
    byId("against").textContent = first && first !== this.card ? "A/B with A" : first ? "This is A" : "A/B";
  }

  problem() {
    const { card } = this;
    if (card.status === "quarantined") return "No browser can show these bytes.";
    return absence(card).join(": ");
  }

  absent(text) {
    byId("detail-picture").hidden = true;
    byId("detail-picture").removeAttribute("src");
    byId("detail-absent").textContent = text;
    byId("detail-absent").hidden = false;
  }

  preload() {
    for (const card of [this.cards[this.at + 1], this.cards[this.at - 1]]) {
      if (card && largest(card)) new Image().src = largest(card);
    }
  }
}
