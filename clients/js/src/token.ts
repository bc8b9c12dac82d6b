/** What is left of a JSON Web Token's life, milliseconds; NaN when it is none or has no end. */
export const lifeLeft = (token: string): number => {
  try {
    return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).exp * 1000 - Date.now();
  } catch {
    return NaN;
  }
};
