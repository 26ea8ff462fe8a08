// The line that tells the run, and the bar and the time left of an active one. No listeners.

const PACE_IMAGES = 30; // the latest images, by which the pace of an active run is measured

function dollars(value) {
  return "$" + (value >= 1 || Number.isInteger(value * 100) ? value.toFixed(2) : String(value));
}

function counted(count, one) {
  return count.toLocaleString() + " " + one + (count === 1 ? "" : "s");
}

function instantsOf(cards) {
  const found = cards.map((card) => Date.parse(card.finished_at)).filter((instant) => instant > 0);
  return found.sort((a, b) => a - b);
}

// Images a minute between instants in milliseconds; 0 for too few.
function paceOf(instants) {
  const span = instants.length > 1 ? instants[instants.length - 1] - instants[0] : 0;
  return span > 0 ? ((instants.length - 1) * 60_000) / span : 0;
}

function paceText(pace) {
  if (!pace) return "";
  if (pace >= 1) return (pace >= 10 ? Math.round(pace) : pace.toFixed(1)).toLocaleString() + " a minute";
  return (pace * 60).toFixed(1) + " an hour";
}

function duration(seconds) {
  if (seconds < 90) return Math.max(1, Math.round(seconds)) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

function dateText(instants) {
  if (!instants.length) return "";
  const [first, last] = [new Date(instants[0]), new Date(instants[instants.length - 1])];
  const day = { day: "numeric", month: "short", year: "numeric" };
  const [from, to] = [first, last].map((date) => date.toLocaleDateString(undefined, day));
  if (from !== to) return from + " – " + to;
  return from + ", " + first.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

// What the images cost, in cents to spare sums of fractions.
function costOf(cards) {
  let cost = 0;
  for (const card of cards) {
    if (card.status === "saved") cost += card.cost || 0;
    else if (card.paid === "yes") cost += card.price || 0;
  }
  return Math.round(cost * 1000) / 1000;
}

function aboutRun(run, cards) {
  const saved = cards.filter((card) => card.status === "saved");
  const models = [...new Set(cards.map((card) => card.model).filter(Boolean))].sort();
  const instants = instantsOf(saved);
  const cost = costOf(cards);
  return [
    counted(saved.length, "image"),
    models.length > 2 ? models.length + " models" : models.join(", "),
    dateText(instants),
    run.simulated ? "simulated, nothing was paid" : cost ? dollars(cost) : "",
    paceText(paceOf(instants)),
  ].filter(Boolean);
}

// {share, text} of an active run with a known number of images.
function progressOf(total, cards) {
  const done = Math.min(cards.filter((card) => card.status !== "running").length, total);
  const latest = instantsOf(cards).slice(-PACE_IMAGES);
  const pace = paceOf(latest);
  const left = pace && done < total ? ", about " + duration(((total - done) / pace) * 60) + " left" : "";
  return { share: total ? done / total : 0, text: done.toLocaleString() + " of " + counted(total, "image") + left };
}
