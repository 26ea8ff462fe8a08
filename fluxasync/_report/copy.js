"use strict";
const button = document.getElementById("copy");
const markdown = document.getElementById("markdown");

/** Copies by selection, where a page may not use the clipboard itself. */
function copyBySelection() {
  markdown.closest("details").open = true;
  getSelection().selectAllChildren(markdown);
  return document.execCommand("copy");
}

async function copy() {
  let copied = true;
  try {
    await navigator.clipboard.writeText(markdown.textContent);
  } catch {
    copied = copyBySelection();
  }
  button.textContent = copied ? "Copied" : "Selected below: press Ctrl-C";
}

button.hidden = false;
button.addEventListener("click", copy);
