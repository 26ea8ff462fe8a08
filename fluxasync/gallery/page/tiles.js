// Elements for cards. A card's values enter the page as text, or as a checked URL of a file beside it,
// never as markup.

function byId(id) {
  return document.getElementById(id);
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function className(card) {
  return card.status.replace(" ", "-");
}

// The server ends with the run; a file that was not loaded before is then not missing.
const server = { isGone: false };

function absence(card) {
  return server.isGone
    ? ["The server has ended", card.url || "The file is in the folder."]
    : ["File missing", card.url || card.file_name || ""];
}

// A page on a disk has thumbnails only of the images in a bucket.
function largest(card) {
  return card.file || card.thumb;
}

const CHARGES = { yes: "paid", no: "not paid", unknown: "may have been charged" };

function chargeOf(card) {
  if (!card.paid) return "";
  const price = card.price === undefined || card.paid === "no" ? "" : ", " + dollars(card.price);
  return CHARGES[card.paid] + price;
}

// Why an image is not there, in a few words: the heading of a list of failures.
function causeOf(card) {
  const word = WORDS[card.status];
  const isSaid = !card.cause || ["moderated", "in-doubt", "not-listed"].includes(card.cause);
  return isSaid ? word : word + ": " + card.cause;
}

// An image that loads when its `start` is called: while the page flies past, none is.
function pictureOf(card, onAbsent) {
  const image = element("img");
  image.alt = "";
  image.decoding = "async";
  image.draggable = false;
  let left = [card.thumb, card.file].filter(Boolean);
  const tryNext = () => {
    if (left.length) image.src = left.shift();
    else onAbsent();
  };
  image.addEventListener("error", tryNext);
  image.start = () => {
    image.start = null;
    tryNext();
  };
  return image;
}

function smallButton(className, text, label) {
  const made = element("button", className, text);
  made.type = "button";
  made.tabIndex = -1; // keys do the same in the focused tile
  made.title = label;
  made.setAttribute("aria-label", label);
  return made;
}

function frameOf(spot, isTable) {
  const { card } = spot;
  const frame = element("span", "frame");
  const words = (word, why) => {
    frame.querySelector("img")?.remove();
    frame.prepend(element("span", "word", word), element("span", "why", why));
  };
  if (card.status === "saved" && largest(card)) {
    frame.append(pictureOf(card, () => words(...absence(card))));
  } else if (card.status === "quarantined" && card.file) {
    const word = WORDS[card.status];
    frame.append(pictureOf(card, () => {
      frame.replaceChildren();
      words(word, card.message || "");
    }));
    frame.append(element("span", "mark", word));
  } else if (card.status === "saved") {
    words("File missing", card.url || card.file_name || "");
  } else {
    words(WORDS[card.status], card.message || card.cause || "");
  }
  if (spot.cards && spot.cards.length > 1) {
    frame.append(element("span", "more", "+" + (spot.cards.length - 1)));
  }
  if (canBePicked(card)) {
    frame.append(smallButton("heart", "♥", "Pick (p)"));
    if (isTable) frame.append(smallButton("best", "Best of row", "Pick this one, reject the rest of the row (b)"));
    frame.append(element("span", "letter"));
  }
  return frame;
}

function captionOf(spot, captions) {
  const { card } = spot;
  const caption = element("span", "caption");
  caption.dir = "auto";
  if (spot.caption) {
    caption.textContent = spot.caption;
    return caption;
  }
  const { facts, prompt } = captions.of(card);
  if (facts) caption.append(element("b", "", facts));
  if (facts && prompt) caption.append("  ");
  caption.append(prompt || (facts ? "" : card.where || ""));
  return caption;
}

function lineOf(card) {
  const said = (className, text) => {
    const made = element("span", className, text);
    made.dir = "auto";
    return made;
  };
  return [
    said("subject", card.prompt || card.where || ""),
    said("why", card.message || card.cause || ""),
    said("charge", [card.model, chargeOf(card)].filter(Boolean).join(" · ")),
  ];
}

function tileOf(spot, captions, isTable) {
  const { card } = spot;
  const tile = element("div", "tile " + className(card) + (spot.isLine ? " line-of-text" : ""));
  tile.setAttribute("role", "button");
  tile.dataset.key = card.key;
  if (spot.isLine) tile.append(...lineOf(card));
  else tile.append(frameOf(spot, isTable), captionOf(spot, captions));
  return tile;
}

// Shows what was decided about an image, and its letter in a comparison of two.
function markTile(tile, card, state, letter) {
  const isPicked = state === "picked";
  tile.classList.toggle("picked", isPicked);
  tile.classList.toggle("rejected", state === "rejected");
  const heart = tile.querySelector(".heart");
  if (heart) heart.setAttribute("aria-pressed", isPicked);
  const mark = tile.querySelector(".letter");
  if (mark) mark.textContent = letter;
  const decided = ["picked", "rejected"].includes(state) ? ", " + state : "";
  const said = WORDS[card.status] + decided + ": " + (card.prompt || card.where || "");
  tile.setAttribute("aria-label", said.slice(0, 300));
}

function put(tile, box) {
  for (const [name, value] of Object.entries(box)) tile.style[name] = value + "px";
}
