// Whether to come back after a close, and when. The gateway's own clients follow the same two rules.

const FIRST_MS = 500;
const LAST_MS = 20_000;

/** False for 44xx (fix something first), a normal close, and the codes that say this client broke the rules. */
export const mayReturn = (code: number): boolean =>
  !(code === 1000 || code === 1002 || code === 1003 || (code >= 1007 && code <= 1010) || (code >= 4400 && code < 4500));

/** Full jitter: anywhere in a window that doubles from 0.5 s to 20 s, so that many clients do not come back in step. */
export const backOff = (tries: number): number => Math.random() * Math.min(LAST_MS, FIRST_MS * 2 ** tries);
