// The position of every tile: rows of tiles, each {card, x, width}, in one tall space. Only the rows
// near the window are in the DOM, so ten thousand images cost no more than ten.

const CAPTION = 30;
const HEADING = 34;

function shapeOf(card) {
  const { width, height } = card.width ? card : card.parameters || {};
  return width > 0 && height > 0 ? Math.min(Math.max(width / height, 0.4), 3) : 1;
}

// Rows as wide as the page and of about equal height; images are never cropped.
function justified(cards, width, height, gap) {
  const rows = [];
  let waiting = [];
  let shapes = 0;
  let y = 0;
  const close = (tall) => {
    let x = 0;
    const tiles = waiting.map((card) => {
      const tile = { card, x, width: shapeOf(card) * tall };
      x += tile.width + gap;
      return tile;
    });
    rows.push({ y, height: tall + CAPTION, tiles });
    y += tall + CAPTION + gap;
    waiting = [];
    shapes = 0;
  };
  for (const card of cards) {
    waiting.push(card);
    shapes += shapeOf(card);
    const room = width - gap * (waiting.length - 1);
    if (room / shapes <= height) close(room / shapes);
  }
  if (waiting.length) close(Math.min(height, (width - gap * (waiting.length - 1)) / shapes));
  return { rows, height: y, width };
}

// Rows under a heading, cells of one size; many columns make them wider than the page. Of a cell's
// images a preferred one is shown. `size` is the usual height of an image.
function compared(table, columns, width, gap, size, isPreferred) {
  const names = columns ? columns.values : null;
  const longest = Math.max(...table.map(([, cells]) => cells.size), 1);
  const count = names ? names.length : longest;
  const smallest = size * (width < 600 ? 0.78 : 0.67);
  const cell = Math.min(Math.max((width - gap * (count - 1)) / count, smallest), size * 1.7);
  const shapes = table.flatMap(([, cells]) => [...cells.values()].map(([card]) => shapeOf(card)));
  const middle = shapes.sort((a, b) => a - b)[shapes.length >> 1] || 1;
  const tall = cell / middle + CAPTION;
  const rows = table.map(([value, cells], number) => {
    const tiles = [...cells].map(([name, cards]) => ({
      card: cards.find(isPreferred) || cards.find((card) => card.status === "saved") || cards[0],
      cards,
      caption: names ? labelOf(columns, name) : "",
      width: cell,
      x: (names ? names.indexOf(name) : Number(name)) * (cell + gap),
    }));
    tiles.sort((a, b) => a.x - b.x);
    return { y: number * (tall + HEADING + gap), height: tall, heading: value, tiles };
  });
  return { rows, height: rows.length * (tall + HEADING + gap), width: count * (cell + gap) - gap };
}

// Lines of text, those of one cause under a heading that counts them.
function listed(cards, width, causeOf) {
  const groups = new Map();
  for (const card of cards) {
    const cause = causeOf(card);
    if (!groups.has(cause)) groups.set(cause, []);
    groups.get(cause).push(card);
  }
  const height = width < 600 ? 92 : 60;
  const rows = [];
  let y = 0;
  const largestFirst = [...groups].sort(([, a], [, b]) => b.length - a.length);
  for (const [cause, group] of largestFirst) {
    group.forEach((card, place) => {
      const heading = place ? undefined : cause + " · " + group.length.toLocaleString();
      rows.push({ y, height, heading, tiles: [{ card, x: 0, width, isLine: true }] });
      y += height + (place ? 0 : HEADING);
    });
    y += HEADING / 2;
  }
  return { rows, height: y, width };
}

function heightOf(row) {
  return row.height + (row.heading === undefined ? 0 : HEADING);
}

// The first row that ends below y.
function rowAt(rows, y) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].y + heightOf(rows[middle]) < y) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The tile above or below another one: the one with the nearest centre.
function nearest(row, tile) {
  const middle = tile.x + tile.width / 2;
  const away = (other) => Math.abs(other.x + other.width / 2 - middle);
  return row.tiles.reduce((best, other) => (away(other) < away(best) ? other : best));
}
