// Elements for cards. A card's values enter the page as text, or as a checked URL of a file beside it,
// never as markup.

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
  tryNext();
  return image;
}

function tileOf(spot) {
  const { card } = spot;
  const tile = element("button", "tile " + className(card));
  tile.type = "button";
  tile.dataset.key = card.key;
  const frame = element("span", "frame");
  const words = (word, why) =>
    frame.replaceChildren(element("span", "word", word), element("span", "why", why));
  if (card.status === "saved" && largest(card)) {
    frame.append(pictureOf(card, () => words(...absence(card))));
  } else if (card.status === "quarantined" && card.file) {
    const word = WORDS[card.status];
    frame.append(pictureOf(card, () => words(word, card.message || "")));
    frame.append(element("span", "mark", word));
  } else if (card.status === "saved") {
    words("File missing", card.url || card.file_name || "");
  } else {
    words(WORDS[card.status], card.message || card.cause || "");
  }
  if (spot.cards && spot.cards.length > 1) {
    frame.append(element("span", "more", "+" + (spot.cards.length - 1)));
  }
  const text = spot.caption || card.prompt || card.where || "";
  const caption = element("span", "caption", text);
  caption.dir = "auto";
  tile.append(frame, caption);
  tile.setAttribute("aria-label", (WORDS[card.status] + ": " + (card.prompt || text)).slice(0, 300));
  return tile;
}

function put(tile, box) {
  for (const [name, value] of Object.entries(box)) tile.style[name] = value + "px";
}
