export { connect } from "./client.js";
export { FanfareError } from "./errors.js";
export type * from "./types.js";
