// Keeps the end of a log in view while it grows, unless the reader has gone up.

const NEAR = 48;
const GAP = 12;

/** Follows the growth of what is, and will be, in a log. */
export function follow(log) {
  let isAtEnd = true;
  // The beginning of what came last stays in view, however long it grows.
  const end = () =>
    isAtEnd && log.scrollTo({ top: Math.min(log.scrollHeight, log.lastElementChild.offsetTop - GAP) });
  const sizes = new ResizeObserver(end);
  new MutationObserver((changes) => {
    isAtEnd = true;
    for (const { addedNodes } of changes) addedNodes.forEach((node) => sizes.observe(node));
  }).observe(log, { childList: true });
  log.addEventListener("scroll", () => {
    isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
  });
}
