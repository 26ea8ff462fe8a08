// The data of the page: sort orders, axes, and what differs between images. No DOM access.

const STATUSES = ["saved", "moderated", "failed", "quarantined", "in doubt", "running"];
const WORDS = {
  saved: "Saved", moderated: "Moderated", failed: "Failed", quarantined: "In quarantine",
  "in doubt": "In doubt", running: "Not collected yet",
};
const MOST_COLUMNS = 16;

function inOrder(a, b) {
  return a.index - b.index || (a.key < b.key ? -1 : 1);
}

function secondsOf(card) {
  let total = 0;
  for (const [name, value] of Object.entries(card.timings || {})) {
    if (name !== "polls" && typeof value === "number") total += value;
  }
  return total;
}

// The orders that every run has; a column is one too.
const ORDERS = {
  given: ["In order", inOrder],
  newest: ["Newest first", (a, b) => {
    const [late, early] = [b.finished_at || "", a.finished_at || ""];
    return late === early ? b.index - a.index : late < early ? -1 : 1;
  }],
  slowest: ["Slowest first", (a, b) => secondsOf(b) - secondsOf(a) || inOrder(a, b)],
};

// Compares by an axis: numbers as numbers, images without a value last.
function byAxis(axis) {
  const places = new Map(axis.values.map((value, place) => [value, value === "" ? Infinity : place]));
  return (a, b) => {
    const [one, other] = [places.get(axis.of(a)), places.get(axis.of(b))];
    return one === other ? inOrder(a, b) : one - other;
  };
}

// An axis: a name, and the value of an image.
function axesOf(cards) {
  const parameters = new Set();
  const extras = new Set();
  for (const card of cards) {
    for (const name in card.parameters) parameters.add(name);
    for (const name in card.extras) extras.add(name);
  }
  const axes = [
    { name: "prompt", of: (card) => shown(card.prompt) },
    { name: "model", of: (card) => shown(card.model) },
  ];
  for (const name of parameters) {
    axes.push({ name, of: (card) => shown((card.parameters || {})[name]) });
  }
  for (const name of extras) {
    if (parameters.has(name)) continue;
    axes.push({ name, isColumn: true, of: (card) => shown((card.extras || {})[name]) });
  }
  axes.push({ name: "seed", of: (card) => shown(card.seed) });
  for (const axis of axes) axis.values = valuesOf(axis, cards);
  return axes.filter((axis) => axis.values.length > 1);
}

function valuesOf(axis, cards) {
  const values = [...new Set(cards.map(axis.of))];
  const areNumbers = values.every((value) => value === "" || !Number.isNaN(Number(value)));
  return areNumbers ? values.sort((a, b) => Number(a) - Number(b)) : values;
}

// The label of a value: prompts and models stand alone, other values follow their axis's name.
function labelOf(axis, value) {
  if (value === "") return "no " + axis.name;
  return ["prompt", "model"].includes(axis.name) ? value : axis.name + " " + value;
}

// The pair of axes that fills the largest table best; prompts become rows if possible.
function bestAxes(axes, cards) {
  let best = { rows: axes[0], columns: null, score: 0 };
  for (const rows of axes) {
    for (const columns of axes) {
      if (rows === columns || columns.values.length > MOST_COLUMNS) continue;
      const cells = rows.values.length * columns.values.length;
      const filled = new Set(cards.map((card) => rows.of(card) + "\0" + columns.of(card))).size;
      const score = (filled * filled) / cells;
      if (filled >= cells / 2 && score > best.score) best = { rows, columns, score };
    }
  }
  return best;
}

// Rows of cells of cards; without a column axis a row's cards stand side by side.
function tableOf(cards, rows, columns) {
  const table = new Map();
  for (const value of rows ? rows.values : [""]) table.set(value, new Map());
  for (const card of cards) {
    const row = table.get(rows ? rows.of(card) : "");
    const column = columns ? columns.of(card) : String(row.size);
    if (!row.has(column)) row.set(column, []);
    row.get(column).push(card);
  }
  return [...table].filter(([, cells]) => cells.size);
}

// --- captions ------------------------------------------------------------------------------------

const MOST_FACTS = 3;
const SHORTEST_START = 24; // letters; a common start of prompts that is shorter stays

// The words that all prompts start with, "" for few.
function commonStart(prompts) {
  let start = prompts[0] || "";
  for (const prompt of prompts) {
    let length = 0;
    while (length < start.length && start[length] === prompt[length]) length += 1;
    start = start.slice(0, length);
  }
  start = start.slice(0, start.lastIndexOf(" ") + 1);
  return start.length < SHORTEST_START || prompts.includes(start.trim()) ? "" : start;
}

// The axes that together tell images apart, as few as possible: parameters before a user's columns,
// and those with most values first.
function tellingAxes(cards) {
  const weight = (axis) => (axis.isColumn ? 0 : 1e9) + axis.values.length;
  const chosen = [];
  let count = 1;
  for (const axis of axesOf(cards).sort((a, b) => weight(b) - weight(a))) {
    if (count === cards.length || chosen.length === MOST_FACTS) break;
    const wider = [...chosen, axis];
    const seen = new Set(cards.map((card) => wider.map((one) => one.of(card)).join("\0")));
    if (seen.size > count) {
      chosen.push(axis);
      count = seen.size;
    }
  }
  return chosen;
}

// What tells an image from the others: the facts by which images of its prompt differ, and the
// prompt, if there are several, without the words that all start with.
class Captions {
  constructor(cards) {
    this.groups = new Map();
    for (const card of cards) {
      const prompt = shown(card.prompt);
      if (!this.groups.has(prompt)) this.groups.set(prompt, { cards: [], axes: null });
      this.groups.get(prompt).cards.push(card);
    }
    this.start = this.groups.size > 1 ? commonStart([...this.groups.keys()].filter(Boolean)) : "";
  }

  get onlyPrompt() {
    const [prompt] = this.groups.keys();
    return this.groups.size === 1 && this.groups.get(prompt).cards.length > 1 ? prompt : "";
  }

  of(card) {
    const prompt = shown(card.prompt);
    const group = this.groups.get(prompt);
    if (!group || group.cards.length < 2) return { facts: "", prompt: this.shortened(prompt) };
    group.axes = group.axes || tellingAxes(group.cards);
    const facts = group.axes
      .filter((axis) => axis.of(card) !== "")
      .map((axis) => labelOf(axis, axis.of(card)));
    const isAlone = this.groups.size === 1 && facts.length > 0;
    return { facts: facts.join(" · "), prompt: isAlone ? "" : this.shortened(prompt) };
  }

  shortened(prompt) {
    return this.start && prompt.startsWith(this.start) ? "…" + prompt.slice(this.start.length) : prompt;
  }
}
