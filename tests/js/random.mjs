/** Random choices that a seed repeats (a linear congruential generator; its high bits are random enough for tests). */
export function randomSource(seed) {
  let state = seed >>> 0;
  const below = (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  for (let round = 0; round < 8; round++) below(1); // neighbouring seeds begin alike
  return {below, pick: (choices) => choices[below(choices.length)]};
}
