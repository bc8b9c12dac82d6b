/** Why a command came to nothing. */
export class FanfareError extends Error {
  /**
   * The gateway's code (`not_allowed`, `overloaded`, …), or the client's: `connection_lost`, `timeout`, `queue_full`, `closed`,
   * `already_subscribed`.
   */
  readonly code: string;
  /** False: the gateway has not seen the command. True: it may have acted on it, or has refused it. */
  readonly sent: boolean;

  constructor(code: string, message = code, sent = false) {
    super(message);
    this.name = "FanfareError";
    this.code = code;
    this.sent = sent;
  }
}
