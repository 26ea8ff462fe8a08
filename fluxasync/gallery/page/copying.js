// Copy buttons: the prompt, the seed, and the command that makes an image again.

// Text for a shell. Control characters are written out, so that pasting them does nothing.
function quoted(text) {
  if (/[\x00-\x1f\x7f-\x9f]/.test(text)) {
    const code = (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0");
    const inert = text.replace(/[\\']/g, "\\$&").replace(/[\x00-\x1f\x7f-\x9f]/g, code);
    return "$'" + inert + "'";
  }
  return /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
}

// A parameter as --param K=V reads it: JSON, or text that is not JSON.
function written(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  try {
    JSON.parse(value);
    return JSON.stringify(value);
  } catch {
    return value;
  }
}

// Bytes that the page does not have; the command leaves them out.
function isDigest(value) {
  return typeof value === "string" && value.startsWith("sha256:");
}

function commandOf(card) {
  const words = ["fluxasync generate"];
  if (card.model) words.push("--model " + quoted(card.model));
  if (card.seed !== undefined) words.push("--param seed=" + quoted(shown(card.seed)));
  for (const [name, value] of Object.entries(card.parameters || {})) {
    if (isDigest(value) || (Array.isArray(value) && value.some(isDigest))) continue;
    const text = typeof value === "string" ? value.replace(/^(url|path):/, "") : value;
    words.push("--param " + quoted(name + "=" + written(text)));
  }
  const ending = (card.file_name || "").split(".").pop();
  words.push("-o image-" + card.index + "." + (/^\w{3,4}$/.test(ending) ? ending : "jpg"));
  return words.join(" ") + " -- " + quoted(shown(card.prompt));
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text);
  }
}

// For browsers without a clipboard on this page. The field is in the dialog, which has the focus.
function copiedBySelection(text) {
  const field = element("textarea");
  field.value = text;
  (document.querySelector("dialog[open]") || document.body).append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  return isDone;
}

function copyOnClick(button, textOf) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    button.textContent = (await copied(textOf())) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = label), 1200);
  });
}
