// Picked and rejected images. The served page sends decisions to the folder; a page on a disk keeps
// them in the browser, and "Download picks" makes the file for the folder.

const MOST_AT_ONCE = 500; // a request that outlives its page has at most 64 KiB

function stored(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch {
    // a browser may keep nothing for a page on a disk
  }
  return null;
}

const KEY = /^[0-9a-f]{64}$/;

function canBePicked(card) {
  return card.status === "saved" && KEY.test(card.key);
}

class Picks {
  constructor(run, onProblem) {
    this.isServed = run.live;
    this.onProblem = onProblem;
    this.name = "fluxasync-picks:" + location.pathname;
    this.decided = new Map(Object.entries(run.picks || {}));
    this.unsent = new Map();
    this.isSending = false;
    this.problem = ""; // why the last decisions are not in the folder
    if (!this.isServed) this.recall();
  }

  recall() {
    let kept = {};
    try {
      kept = JSON.parse(stored(this.name)) || {};
    } catch {
      kept = {}; // of another program
    }
    for (const [key, pick] of Object.entries(kept)) {
      const known = this.decided.get(key);
      const isPick = KEY.test(key) && Array.isArray(pick) && [true, false, null].includes(pick[0]);
      if (isPick && !(known && known[1] > shown(pick[1]))) this.decided.set(key, [pick[0], shown(pick[1])]);
    }
  }

  // true = picked, false = rejected, null = undecided
  of(card) {
    const known = this.decided.get(card.key);
    return known && canBePicked(card) ? known[0] : null;
  }

  // What filters and counts call it; "" for an image that cannot be picked.
  stateOf(card) {
    if (!canBePicked(card)) return "";
    return { true: "picked", false: "rejected", null: "undecided" }[this.of(card)];
  }

  get isEmpty() {
    for (const [picked] of this.decided.values()) if (picked !== null) return false;
    return true;
  }

  decide(cards, picked) {
    const at = new Date().toISOString().replace(/\.\d+/, "");
    for (const card of cards) {
      if (!canBePicked(card) || this.of(card) === picked) continue;
      this.decided.set(card.key, [picked, at]);
      if (this.isServed) this.unsent.set(card.key, picked);
    }
    if (this.isServed) this.send();
    else stored(this.name, JSON.stringify(Object.fromEntries(this.decided)));
  }

  async send() {
    if (this.isSending || !this.unsent.size) return;
    this.isSending = true;
    const sent = [...this.unsent].slice(0, MOST_AT_ONCE);
    const problem = await posted(Object.fromEntries(sent));
    this.isSending = false;
    this.problem = problem;
    this.onProblem(problem);
    if (problem) return;
    for (const [key, picked] of sent) if (this.unsent.get(key) === picked) this.unsent.delete(key);
    this.send();
  }

  download() {
    const lines = [...this.decided].map(([key, [picked, at]]) =>
      JSON.stringify(at ? { key, picked, at } : { key, picked }) + "\n");
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    link.download = "picks.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
}

// Sends decisions; returns the problem, "" for none.
async function posted(picks) {
  try {
    const answer = await fetch("picks", {
      method: "POST", body: JSON.stringify(picks), headers: { "Content-Type": "application/json" },
      keepalive: true,
    });
    return answer.ok ? "" : "Picks are not saved: " + (await answer.text());
  } catch {
    return "Picks are not saved: the server has ended. Download them into the folder of the run.";
  }
}
