// A share as a colour: the ramp of the program's own viewer. Lightness grows with the share, so it
// works without colour vision.

const RAMP = [
  [122, 104, 190],
  [84, 138, 205],
  [45, 172, 162],
  [120, 208, 92],
  [253, 231, 37],
];

/** `#rrggbb` of a share in 0..=1; what is outside is drawn as the nearest end. */
export function hex(share) {
  const x = Math.min(Math.max(Number(share) || 0, 0), 1) * (RAMP.length - 1);
  const left = Math.min(Math.floor(x), RAMP.length - 2);
  const mixed = RAMP[left].map((from, i) => from + (RAMP[left + 1][i] - from) * (x - left));
  return "#" + mixed.map((channel) => Math.round(channel).toString(16).padStart(2, "0")).join("");
}

/** The ramp as the stops of a gradient. */
export const stops = () => RAMP.map((_, i) => hex(i / (RAMP.length - 1)));
