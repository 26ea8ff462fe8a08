// Two images on top of each other: a slider moves the edge between A and B.

class Overlay {
  constructor(picks, onPick) {
    this.dialog = byId("overlay");
    this.picks = picks;
    this.pair = [];
    this.slider = byId("edge");
    this.slider.addEventListener("input", () => this.divide());
    byId("overlay-close").addEventListener("click", () => this.dialog.close());
    byId("swap").addEventListener("click", () => this.swap());
    for (const [at, id] of ["pick-a", "pick-b"].entries()) {
      byId(id).addEventListener("click", () => {
        const card = this.pair[at];
        onPick([card], this.picks.of(card) === true ? null : true);
        this.say();
      });
    }
    const drag = (event) => {
      const box = byId("layers").getBoundingClientRect();
      if (event.buttons !== 1 || !box.width) return;
      this.slider.value = ((event.clientX - box.left) / box.width) * 100;
      this.divide();
    };
    byId("layers").addEventListener("pointerdown", drag);
    byId("layers").addEventListener("pointermove", drag);
  }

  get isOpen() {
    return this.dialog.open;
  }

  open(a, b, textOf) {
    this.pair = [a, b];
    this.textOf = textOf;
    this.slider.value = 50;
    this.show();
    this.dialog.showModal();
    this.slider.focus({ focusVisible: false });
  }

  show() {
    for (const [at, id] of ["layer-a", "layer-b"].entries()) {
      byId(id).src = largest(this.pair[at]);
      byId(id).alt = shown(this.pair[at].prompt);
    }
    const shape = shapeOf(this.pair[0]);
    byId("layers").style.aspectRatio = String(shape);
    byId("layers").style.width = "min(100%, " + (100 * shape).toFixed(2) + "cqh)";
    this.divide();
    this.say();
  }

  say() {
    for (const [at, letter] of ["a", "b"].entries()) {
      const card = this.pair[at];
      byId("text-" + letter).textContent = this.textOf(card);
      const isPicked = this.picks.of(card) === true;
      byId("pick-" + letter).setAttribute("aria-pressed", isPicked);
    }
  }

  divide() {
    byId("layer-b").style.clipPath = "inset(0 0 0 " + this.slider.value + "%)";
    byId("divider").style.left = this.slider.value + "%";
  }

  swap() {
    this.pair.reverse();
    this.show();
  }

  // Arrow keys move the slider by themselves, which has the focus.
  onKey(key) {
    if (key === "s") this.swap();
    else if (key === "a" || key === "b") byId("pick-" + key).click();
  }
}
