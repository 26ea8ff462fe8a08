// The address of what is open, as #/image/41?q=fox: it can be kept and sent, and Back works.

class Address {
  constructor(onMove) {
    this.isReturning = false; // Back was asked for and has not happened yet
    this.waiting = null; // what is to be opened after that
    addEventListener("popstate", () => {
      const wasReturning = this.isReturning;
      this.isReturning = false;
      if (this.waiting !== null) {
        history.pushState({ isOpened: true }, "", this.waiting);
        this.waiting = null;
      } else onMove(this.read(), wasReturning);
    });
  }

  // {image, query}: the name of the open image, "" for none, and the filters.
  read() {
    const [path, text] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    const query = new URLSearchParams(location.hash ? text || "" : location.search);
    const image = path.startsWith("image/") ? path.slice(6) : "";
    try {
      return { image: decodeURIComponent(image), query };
    } catch {
      return { image: "", query };
    }
  }

  of(image, query) {
    const text = query.toString();
    return "#/" + (image ? "image/" + encodeURIComponent(image) : "") + (text ? "?" + text : "");
  }

  isAt(wanted) {
    return wanted === (location.hash || "#/");
  }

  // Another state of the same page, without a new step for Back.
  replace(image, query) {
    const wanted = this.of(image, query);
    try {
      if (!this.isAt(wanted)) history.replaceState(history.state, "", wanted);
    } catch {
      // some browsers allow a hundred changes in half a minute
    }
  }

  // A new step: Back leads to what was open before.
  push(image, query) {
    const wanted = this.of(image, query);
    if (this.isReturning) this.waiting = wanted;
    else if (!this.isAt(wanted)) history.pushState({ isOpened: Boolean(image) }, "", wanted);
  }

  // The open image was closed: Back, if it was opened from here.
  leave(query) {
    if (!this.read().image || this.isReturning) return;
    if (history.state && history.state.isOpened) {
      this.isReturning = true;
      history.back();
    } else this.replace("", query);
  }
}

// The name of a card in an address: its place in the run, or its key where another has that place.
class Names {
  constructor(cards) {
    this.byPlace = new Map();
    for (const card of cards) {
      this.byPlace.set(card.index, this.byPlace.has(card.index) ? null : card);
    }
    this.cards = cards;
  }

  of(card) {
    return this.byPlace.get(card.index) === card ? String(card.index) : card.key;
  }

  find(name) {
    const found = /^\d+$/.test(name) && this.byPlace.get(Number(name));
    return found || this.cards.find((card) => card.key === name) || null;
  }
}
