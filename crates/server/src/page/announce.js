// What a screen reader is told of, beside what has the focus: rarely, and never each step.

const region = document.getElementById("announcer");

/** Says a sentence once the present one is over. */
export function announce(text) {
  region.textContent = text;
}
