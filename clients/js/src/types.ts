// What a program that uses the client sees. Objects that come from the gateway keep the names of the protocol.

import type { FanfareError } from "./errors.js";

/** A URL as a string or as a `URL`. */
export type Address = string | { readonly href: string };

/** Any constructor that behaves like the WebSocket of browsers, such as that of the package `ws`. */
export type WebSocketConstructor = new (url: any, protocols?: any) => object;

/** `waiting`: the connection was lost, and the client comes back by itself. `stopped`: it does not; see {@link Client.connect}. */
export type State = "connecting" | "connected" | "waiting" | "stopped";

/** How {@link connect} behaves. Everything is optional. */
export interface Options {
  /** A token that tells the gateway who this is. */
  token?: string;
  /**
   * Called before every attempt to connect, and when a token has expired; wins over `token`. When it fails, the client reports it to
   * `onError` and tries again with back-off. Without a token (null or undefined) it connects as nobody.
   */
  getToken?: () => string | null | undefined | Promise<string | null | undefined>;
  /**
   * Replace the token on the live connection, with `getToken`, once four fifths of its life are over. Needs a gateway that answers
   * `refresh`. Otherwise the gateway closes the connection when the token expires, and the client comes back with another. Default: false.
   */
  refresh?: boolean;
  /** Name of a guest, 2–20 characters, where the gateway allows guests. */
  name?: string;
  /** A guest's `welcome.token` of another time: the same guest comes back. When the gateway does not know it any more, `name` alone counts. */
  guestToken?: string;
  /** The WebSocket to use where there is no global one (Node 20) or another is wanted. */
  WebSocket?: WebSocketConstructor;
  /** How long a command may wait to be sent and answered, milliseconds. Default: 10,000. */
  timeoutMs?: number;
  /** How many commands may wait to be sent and answered; beyond, they are refused with `queue_full`. Default: 1,000. */
  waitingMax?: number;
  /** The state has changed. */
  onState?: (state: State) => void;
  /** Connected, at first or again; the rooms have been asked for and what waited has been sent. */
  onConnect?: (welcome: Welcome) => void;
  /** A connection ended, or an attempt failed. */
  onDisconnect?: (end: Disconnect) => void;
  /** This node leaves service; the client comes back by itself, not before this time. */
  onDrain?: (drain: { retry_ms: number }) => void;
  /** A message to this user rather than to a room: somebody's `send`. */
  onMessage?: (event: Message) => void;
  /** An event that this client does not know, such as one of a later gateway. */
  onEvent?: (event: { name: string; [field: string]: unknown }) => void;
  /** What went wrong and belongs to no promise. Without it: `console.error`. */
  onError?: (error: unknown) => void;
}

/** What the gateway says first. */
export interface Welcome {
  /** Id of the connection. */
  connection: string;
  /** Time between the gateway's pings, milliseconds. */
  heartbeat_ms: number;
  /** Name of the node. */
  node: string;
  /** Who you are, where the gateway knows. */
  user?: string;
  /** A guest's token: with it as `token`, the same guest comes back. Within one client that is done for you. */
  token?: string;
}

/** How a connection ended. */
export interface Disconnect {
  /** The close code; 1006: the connection was lost or never made. */
  code: number;
  /** The gateway's reason, or the client's own. */
  reason: string;
  /** The client comes back after this time, milliseconds; null: it has stopped. */
  retryMs: number | null;
}

/** A publication. */
export interface Message<T = any> {
  /** What was published. */
  message: T;
  /** The room; a message to a user has none. */
  room?: string;
  /** Who published it, where the gateway knows. */
  user?: string;
  /** Its number in the room, where history is on. */
  offset?: number;
  /** `base64`: it was published as binary. */
  encoding?: "base64";
}

/** A subscription has begun, or has begun again after a reconnect. */
export interface Subscribed {
  /** Names one life of the room. */
  epoch: string;
  /** The number of the room's latest publication. */
  offset: number;
  /** True: nothing was missed, or all of it follows. False: something was; `onGap` is called too. */
  recovered: boolean;
}

/** Publications of a room that this client did not get and will not get. */
export interface Gap {
  room: string;
  /** How many; undefined: the room began anew, and nobody can tell. */
  count?: number;
  /** Number of the first. */
  from?: number;
  /** Number of the last. */
  to?: number;
}

/** What became of a publication. */
export interface Receipt {
  /** Subscribers to whom it was written, or for whom it is queued. */
  delivered: number;
  /** Subscribers that stay and do not get it. */
  dropped: number;
  /** Subscribers that were closed because they could not take it. */
  evicted: number;
  /** Its number, where history is on. */
  offset?: number;
  /** It waits for a moderator. */
  held?: boolean;
}

/** Who is in a room. */
export interface Presence {
  /** How many subscribers. */
  count: number;
  /** Users, where the namespace keeps presence; by name, up to 1,000 at once. */
  members: { user: string; [field: string]: unknown }[];
  /** More follow: ask again with this as `after`. */
  next?: string;
}

/** A room's past. */
export interface History<T = any> {
  messages: Message<T>[];
  epoch: string;
  offset: number;
}

/** What a room tells. All handlers are optional. */
export interface RoomOptions<T = any> {
  /** A position (`epoch:offset`), as {@link Subscription.position} gave it: what was published since follows first. */
  since?: string;
  /** A publication, in the room's order. */
  onMessage?: (event: Message<T>) => void;
  /** The subscription has begun, at first and after every reconnect. */
  onSubscribed?: (subscribed: Subscribed) => void;
  /** Something was missed and will not come: load anew what depends on it. */
  onGap?: (gap: Gap) => void;
  /** A user came (where the namespace tells). */
  onJoined?: (event: { room: string; user?: string }) => void;
  /** A user went. */
  onLeft?: (event: { room: string; user?: string }) => void;
  /** The room was closed for all; this subscription is over. */
  onClosed?: () => void;
  /** The gateway refused the subscription; it is over. Without it: the client's `onError`. */
  onError?: (error: FanfareError) => void;
}

/** A room that this client listens to. */
export interface Subscription {
  readonly room: string;
  /** Where this client stands in the room, `epoch:offset`; undefined before the first `subscribed`. For `since`. */
  readonly position: string | undefined;
  /** Settles with the first `subscribed`, or with the refusal. */
  readonly ready: Promise<Subscribed>;
  publish(message: unknown): Promise<Receipt>;
  presence(query?: { after?: string; limit?: number }): Promise<Presence>;
  history(query?: { since?: string; limit?: number }): Promise<History>;
  /** Ends it; no handler is called any more. */
  unsubscribe(): void;
  /** As `unsubscribe`, and tells the others that you left. */
  leave(): void;
}

/** A connection that comes back. Commands wait while there is none. */
export interface Client {
  readonly state: State;
  /** What the gateway said when this client connected last. */
  readonly welcome: Welcome | undefined;
  /** Connects at once: after `stopped`, or instead of waiting. When connected, looks whether the connection is alive. */
  connect(): void;
  /** Ends the connection and stops; whatever waits is rejected with `closed`. Rooms are kept for a later `connect`. */
  close(): void;
  /** Listens to a room, from now on and after every reconnect. Throws when this client does so already. */
  subscribe<T = any>(room: string, options?: RoomOptions<T>): Subscription;
  /** Publishes to a room, subscribed or not. `noSelf` leaves this connection out. Never repeated by itself: see {@link FanfareError.sent}. */
  publish(room: string, message: unknown, options?: { noSelf?: boolean }): Promise<Receipt>;
  /** To all connections of a user, or into the user's inbox. */
  send(user: string, message: unknown): Promise<Receipt>;
  presence(room: string, query?: { after?: string; limit?: number }): Promise<Presence>;
  history(room: string, query?: { since?: string; limit?: number }): Promise<History>;
  /** The time of a way to the gateway and back, milliseconds. */
  ping(): Promise<number>;
}
