// The data of the page: filters, sort order, and the axes of a comparison. No DOM access.

const STATUSES = ["saved", "moderated", "failed", "quarantined", "in doubt", "running"];
const WORDS = {
  saved: "Saved", moderated: "Moderated", failed: "Failed", quarantined: "In quarantine",
  "in doubt": "In doubt", running: "Not collected yet",
};
const MOST_COLUMNS = 16;

function shown(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// Named values, for exact searches such as `seed:7`.
function namedOf(card) {
  const own = { model: card.model, seed: card.seed, account: card.account };
  const named = { ...own, ...card.extras, ...card.parameters };
  return new Map(
    Object.entries(named).map(([name, value]) => [name.toLowerCase(), shown(value).toLowerCase()]),
  );
}

function searchable(card, named) {
  const texts = [
    card.prompt, card.prompt_used, card.file_name, card.cause, card.message, card.where,
    ...named.keys(), ...named.values(),
  ];
  return texts.map(shown).join("\n").toLowerCase();
}

function hasWord(card, word) {
  card.named = card.named || namedOf(card);
  const colon = word.indexOf(":");
  const value = colon > 0 && card.named.get(word.slice(0, colon));
  if (value && colon < word.length - 1) return value === word.slice(colon + 1);
  card.text = card.text || searchable(card, card.named);
  return card.text.includes(word);
}

function finder(text, model, account) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (card) => {
    if (model && card.model !== model) return false;
    if (account && card.account !== account) return false;
    return words.every((word) => hasWord(card, word));
  };
}

const ORDERS = {
  given: (a, b) => a.index - b.index || (a.key < b.key ? -1 : 1),
  newest: (a, b) => {
    const [late, early] = [b.finished_at || "", a.finished_at || ""];
    return late === early ? b.index - a.index : late < early ? -1 : 1;
  },
};

// An axis of a comparison: a name, and the value of an image.
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
    if (!parameters.has(name)) axes.push({ name, of: (card) => shown((card.extras || {})[name]) });
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
