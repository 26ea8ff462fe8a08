// The tiles near the window, and the focused one.

const FAST = 6; // pixels a millisecond, above which images only fly past
const SETTLED = 120; // milliseconds without a scroll, after which they are loaded

class Grid {
  // `marks`: {stateOf(card), letterOf(card), headingOf(row)}
  constructor(main, marks) {
    this.main = main;
    this.marks = marks;
    this.tiles = new Map(); // on the page now, by key of the card
    this.headings = new Map();
    this.current = null; // the tile's spot that arrows start from
    this.layout = { rows: [], height: 0, width: 0 };
    this.spots = [];
    this.list = []; // every card, those of one cell beside each other
    this.isFast = false;
    this.seen = { top: 0, at: 0 }; // the last scroll
    addEventListener("scroll", () => this.onScroll(), { passive: true });
  }

  show(layout, captions, isTable) {
    this.layout = layout;
    this.captions = captions;
    this.isTable = isTable;
    this.spots = layout.rows.flatMap((row) => row.tiles);
    this.list = this.spots.flatMap((spot) => spot.cards || [spot.card]);
    this.main.replaceChildren();
    this.tiles.clear();
    this.headings.clear();
    this.main.style.height = layout.height + "px";
    this.top = this.main.offsetTop;
    this.draw();
  }

  spotOf(key) {
    return this.spots.find((spot) => spot.card.key === key) || null;
  }

  holding(card) {
    const holds = (spot) => spot.card === card || (spot.cards || []).includes(card);
    return this.spots.find(holds) || null;
  }

  rowOf(spot) {
    return this.layout.rows.find((row) => row.tiles.includes(spot));
  }

  // --- drawing -----------------------------------------------------------------------------------

  onScroll() {
    const now = performance.now();
    const away = Math.abs(scrollY - this.seen.top);
    this.isFast = away > FAST * Math.max(now - this.seen.at, 16) && away > innerHeight / 4;
    this.seen = { top: scrollY, at: now };
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      this.isFast = false;
      this.soon();
    }, SETTLED);
    this.soon();
  }

  soon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  draw() {
    const top = scrollY - this.main.offsetTop;
    byId("bar").classList.toggle("lifted", scrollY > 4);
    const margin = this.isFast ? 0 : innerHeight;
    const near = this.layout.rows.slice(
      rowAt(this.layout.rows, top - margin),
      rowAt(this.layout.rows, top + innerHeight + margin) + 1,
    );
    const wanted = new Map(near.flatMap((row) => row.tiles.map((spot) => [spot.card.key, { row, spot }])));
    for (const [key, tile] of this.tiles) {
      if (!wanted.has(key)) {
        tile.remove();
        this.tiles.delete(key);
      }
    }
    const made = document.createDocumentFragment();
    for (const [key, { row, spot }] of wanted) {
      if (!this.tiles.has(key)) this.tiles.set(key, this.placed(row, spot, made));
    }
    this.drawHeadings(near, made);
    this.main.append(made);
    if (!this.isFast) this.load();
    this.markCurrent();
  }

  load() {
    for (const image of this.main.querySelectorAll(".frame > img")) if (image.start) image.start();
  }

  placed(row, spot, made) {
    const tile = tileOf(spot, this.captions, this.isTable);
    const top = row.y + (row.heading === undefined ? 0 : HEADING);
    put(tile, { left: spot.x, top, width: spot.width, height: row.height });
    tile.tabIndex = -1;
    this.mark(tile, spot.card);
    made.append(tile);
    return tile;
  }

  drawHeadings(near, made) {
    const wanted = new Set(near.filter((row) => row.heading !== undefined));
    for (const [row, heading] of this.headings) {
      if (!wanted.has(row)) {
        heading.remove();
        this.headings.delete(row);
      }
    }
    for (const row of wanted) {
      if (this.headings.has(row)) continue;
      const heading = element("div", "row");
      const text = element("h2");
      text.dir = "auto";
      put(text, { maxWidth: this.main.clientWidth });
      heading.append(text);
      put(heading, { top: row.y, width: this.layout.width });
      made.append(heading);
      this.headings.set(row, heading);
      this.markHeading(row, text);
    }
  }

  markHeading(row, text) {
    const { title, note } = this.marks.headingOf(row);
    text.replaceChildren(title);
    text.title = title;
    if (note) text.append(element("span", "note", note));
  }

  mark(tile, card) {
    markTile(tile, card, this.marks.stateOf(card), this.marks.letterOf(card));
  }

  // After a decision: the tiles stay, their marks change.
  markAll() {
    const spots = new Map(this.spots.map((spot) => [spot.card.key, spot]));
    for (const [key, tile] of this.tiles) this.mark(tile, spots.get(key).card);
    for (const [row, heading] of this.headings) this.markHeading(row, heading.firstChild);
  }

  markCurrent() {
    const first = this.current && this.tiles.get(this.current.card.key);
    for (const tile of this.tiles.values()) tile.tabIndex = -1;
    const tile = first || this.tiles.values().next().value;
    if (tile) tile.tabIndex = 0;
  }

  // --- moving ------------------------------------------------------------------------------------

  move(key) {
    const at = this.current ? this.spots.indexOf(this.current) : -1;
    if (at < 0 || key === "Home" || key === "End") {
      this.goTo(this.spots[key === "End" ? this.spots.length - 1 : 0]);
    } else if (key === "ArrowLeft" || key === "ArrowRight") {
      this.goTo(this.spots[at + (key === "ArrowLeft" ? -1 : 1)]);
    } else {
      const rows = this.layout.rows;
      const row = rows.indexOf(this.rowOf(this.current));
      const to = rows[row + (key === "ArrowUp" ? -1 : 1)];
      if (to) this.goTo(nearest(to, this.current));
    }
  }

  goTo(spot) {
    if (!spot) return;
    this.current = spot;
    const row = this.rowOf(spot);
    const top = this.main.offsetTop + row.y;
    const bar = getComputedStyle(byId("bar")).position === "sticky" ? byId("bar").offsetHeight : 0;
    if (top < scrollY + bar) scrollTo(0, top - bar - 8);
    else if (top + heightOf(row) > scrollY + innerHeight) {
      scrollTo(0, top + heightOf(row) - innerHeight + 8);
    }
    this.draw();
    const tile = this.tiles.get(spot.card.key);
    tile.focus({ preventScroll: true, focusVisible: true });
    if (this.main.scrollWidth > this.main.clientWidth) {
      tile.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  // What changes above keeps the visible images in place, and the focused one focused.
  keepPlace(change) {
    const top = scrollY - this.main.offsetTop;
    const row = top > 0 ? this.layout.rows[rowAt(this.layout.rows, top)] : null;
    const card = row && row.tiles[0].card.key;
    const focused = document.activeElement.closest(".tile");
    const key = focused ? focused.dataset.key : this.current && this.current.card.key;
    const at = this.current ? this.spots.indexOf(this.current) : -1;
    change();
    const isGone = key && !this.spotOf(key);
    // an image that no longer matches gives its place to the next one
    this.current = this.spotOf(key) || (isGone && this.spots[Math.min(at, this.spots.length - 1)]) || null;
    const now = row && this.layout.rows.find((one) => one.tiles.some((tile) => tile.card.key === card));
    if (now) scrollBy(0, now.y - row.y);
    this.draw();
    if (focused && this.current) {
      const tile = this.tiles.get(this.current.card.key);
      if (tile) tile.focus({ preventScroll: true });
    }
  }
}
