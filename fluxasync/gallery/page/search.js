// The search: words, "several words", name:value and -word. No DOM access.

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

const WORD = /(?:[^\s":]+:)?"[^"]*"?|\S+/g;

// The words of a search, each {isNot, text, name, value}.
function wordsOf(search) {
  return (search.toLowerCase().match(WORD) || []).map((given) => {
    const isNot = /^-(?=[\p{L}\p{N}"])/u.test(given);
    const text = given.slice(isNot ? 1 : 0).replaceAll('"', "");
    const colon = text.indexOf(":");
    const isNamed = colon > 0 && colon < text.length - 1;
    const [name, value] = isNamed ? [text.slice(0, colon), text.slice(colon + 1)] : ["", ""];
    return { isNot, text, name, value };
  }).filter((word) => word.text);
}

function textOf(card) {
  card.named = card.named || namedOf(card);
  card.text = card.text || searchable(card, card.named);
  return card.text;
}

function hasWord(card, word) {
  const text = textOf(card);
  const value = word.name && card.named.get(word.name);
  if (value) return value === word.value;
  return text.includes(word.text);
}

// Makes the texts of a long list before they are needed, while the browser has nothing else to do.
function prepareSearch(cards) {
  let at = 0;
  const some = (deadline) => {
    for (; at < cards.length && deadline.timeRemaining() > 2; at += 1) textOf(cards[at]);
    if (at < cards.length) requestIdleCallback(some);
  };
  if (self.requestIdleCallback) requestIdleCallback(some);
}

function finder(search) {
  const words = wordsOf(search);
  return (card) => words.every((word) => hasWord(card, word) !== word.isNot);
}
