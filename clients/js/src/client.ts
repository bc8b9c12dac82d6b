import { FanfareError } from "./errors.js";
import { backOff, mayReturn } from "./returning.js";
import { lifeLeft } from "./token.js";
import type { Address, Client, Options, Receipt, RoomOptions, State, Subscribed, Subscription, Welcome } from "./types.js";

/** No open, no welcome or no answer to a ping for so long: the connection is dead, whatever the browser thinks. */
const SILENCE_MS = 10_000;
/** A connection that lasted this long starts the back-off anew. */
const HELD_MS = 10_000;
/** The longest time that timers can wait; beyond, they fire at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

interface Socket {
  send(text: string): void;
  close(code?: number, reason?: string): void;
  onmessage: (event: { data: string }) => void;
  onclose: (event: { code: number; reason: string }) => void;
  onerror: () => void;
}

type Event = { name: string; [field: string]: any };
type Timer = ReturnType<typeof setTimeout>;

/** A command that has no reply yet. */
interface Command {
  text: string;
  /** Asking twice does no harm: it is sent again when the connection was lost. */
  mayRepeat: boolean;
  sent: boolean;
  settle(error: FanfareError | null, reply?: any): void;
}

interface Room {
  name: string;
  options: RoomOptions;
  /** Where this client stands: what it has got, and what it was told that it will not get. */
  epoch?: string;
  offset: number;
  /** Id of the `subscribe` on its way, or of the one that was answered. */
  id: number;
  /** False until `subscribed`: what comes before belongs to an earlier subscription to the same room. */
  isLive: boolean;
  resolve(subscribed: Subscribed): void;
  reject(error: FanfareError): void;
}

/** Calls a handler. What it throws is the program's affair and must not stop the client: it is thrown again outside. */
const tell = <T>(handler: ((value: T) => void) | undefined, value: T): void => {
  try {
    handler?.(value);
  } catch (error) {
    setTimeout(() => {
      throw error;
    }, 0);
  }
};

const after = (ms: number, then: () => void): Timer => setTimeout(then, Math.min(ms, TIMER_MS_MAX));

/** The WebSocket address: relative ones start from the page, and a bare host means its `/ws`. */
const address = (url: Address): string => {
  const found = new URL(url as URL, globalThis.location?.href);
  found.protocol = found.protocol.replace("http", "ws");
  if (found.pathname === "/") found.pathname = "/ws";
  return found.href;
};

/**
 * Connects to a gateway and stays connected. `url` is its `/ws`; a bare host, `https:` and, in a page, relative addresses are fine too.
 *
 * Throws when the address is none, or when there is no WebSocket here and none was given.
 */
export function connect(url: Address, options: Options = {}): Client {
  const Socket = (options.WebSocket ?? globalThis.WebSocket) as (new (url: string, protocols: string[]) => Socket) | undefined;
  if (!Socket) throw new TypeError("there is no WebSocket here: give one, connect(url, { WebSocket })");
  const target = new URL(address(url));
  if (options.name) target.searchParams.set("name", options.name);
  const { getToken, timeoutMs = 10_000, waitingMax = 1000 } = options;

  const rooms = new Map<string | undefined, Room>();
  // In the order they were given: a Map keeps it, so this is the queue of the unsent, too.
  const waiting = new Map<unknown, Command>();
  let state: State = "connecting";
  let socket: Socket | undefined;
  let welcome: Welcome | undefined;
  let guestToken = options.guestToken;
  // Each attempt has a number, and what an earlier one still says is ignored.
  let attempt = 0;
  let lastId = 0;
  let tries = 0;
  let connectedAt = 0;
  let heardAt = 0;
  // When the last `ping` of our own was sent.
  let askedAt = 0;
  // The node that drained has said so: not before this time.
  let notBefore = 0;
  // The next thing to happen to the connection: give up waiting, look whether it lives, come back.
  let timer: Timer | undefined;
  let drainTimer: Timer | undefined;
  let refreshTimer: Timer | undefined;

  const setState = (next: State) => {
    if (state !== next) tell(options.onState, (state = next));
  };
  const complain = (error: unknown) => tell(options.onError ?? console.error, error);
  const say = (command: object) => socket?.send(JSON.stringify(command));
  const then = (ms: number, next: () => void) => {
    clearTimeout(timer);
    timer = after(ms, next);
  };

  // The connection ---------------------------------------------------------------------------------------------------

  const dial = async () => {
    const mine = ++attempt;
    setState("connecting");
    globalThis.addEventListener?.("online", lookAgain);
    then(SILENCE_MS, () => lost(1006, "no answer in time"));
    try {
      const token = getToken ? await getToken() : (options.token ?? guestToken);
      if (mine !== attempt) return;
      // A subprotocol, because addresses end up in logs, and browsers let nobody set a header.
      socket = new Socket(target.href, token ? ["fanfare", `fanfare.token.${token}`] : []);
      socket.onmessage = ({ data }) => mine === attempt && hear(data);
      socket.onclose = ({ code, reason }) => mine === attempt && lost(code, reason);
      // Says nothing that `onclose` does not say, but without it some WebSockets throw.
      socket.onerror = () => {};
      if (token && getToken && options.refresh) refreshAfter(lifeLeft(token));
    } catch (error) {
      // No handler is called before `connect` has returned.
      await null;
      if (mine !== attempt) return;
      complain(error);
      lost(1006, String(error));
    }
  };

  /** Forgets the connection. A close frame on a dead one takes its time: nobody waits for it. */
  const drop = (reason: string) => {
    const old = socket;
    attempt++;
    socket = undefined;
    [timer, drainTimer, refreshTimer].forEach(clearTimeout);
    old?.close(1000, reason);
  };

  const lost = (code: number, reason: string) => {
    const wasConnected = state === "connected";
    drop(reason);
    if (wasConnected && Date.now() - connectedAt > HELD_MS) tries = 0;
    // Expired while we were connected, or a guest's token that is not known any more: the next attempt brings another, or none.
    const isFixed = code === 4401 && (getToken ? wasConnected : guestToken);
    if (code === 4401) guestToken = undefined;
    if (!mayReturn(code) && !isFixed) return stop(code, reason);
    const retryMs = Math.max(0, notBefore - Date.now()) + backOff(tries++);
    then(retryMs, dial);
    setState("waiting");
    for (const command of [...waiting.values()]) {
      if (!command.sent) continue;
      if (command.mayRepeat) command.sent = false;
      else command.settle(new FanfareError("connection_lost", "the connection was lost before the reply", true));
    }
    tell(options.onDisconnect, { code, reason, retryMs });
  };

  const stop = (code: number, reason: string) => {
    globalThis.removeEventListener?.("online", lookAgain);
    setState("stopped");
    for (const command of [...waiting.values()]) {
      command.settle(new FanfareError("closed", `closed ${code} ${reason}`, command.sent));
    }
    tell(options.onDisconnect, { code, reason, retryMs: null });
  };

  /** Browsers answer pings, but show them to nobody: when nothing else was heard for as long, a `ping` command asks. */
  const watch = (now = false) => {
    const heartbeat = welcome!.heartbeat_ms || 25_000;
    const rest = heardAt + heartbeat - Date.now();
    if (!now && rest > 0) return then(rest, watch);
    // Asked already: asking again and again must not give a dead connection more time.
    if (now && askedAt > heardAt) return;
    askedAt = Date.now();
    say({ name: "ping" });
    then(Math.min(heartbeat, SILENCE_MS), () => (heardAt >= askedAt ? watch() : lost(1006, "silent for too long")));
  };

  const lookAgain = () => {
    if (state === "connected") watch(true);
    else if (state === "waiting" && Date.now() >= notBefore) void dial();
  };

  const refreshAfter = (lifeMs: number) => {
    if (!(lifeMs > 0)) return;
    refreshTimer = after(lifeMs * 0.8, async () => {
      const mine = attempt;
      try {
        const token = await getToken!();
        const { expires_in } = await ask("refresh", { token });
        if (mine === attempt) refreshAfter(expires_in * 1000 || lifeLeft(token!));
      } catch (error) {
        // Not the end: the gateway closes with 4401 when the old one expires, and the client comes back with another.
        if (mine === attempt) complain(error);
      }
    });
  };

  // Commands ---------------------------------------------------------------------------------------------------------

  const ask = (name: string, fields: object, mayRepeat = false): Promise<any> =>
    new Promise((resolve, reject) => {
      if (state === "stopped") throw new FanfareError("closed", "this client has stopped");
      if (waiting.size >= waitingMax) throw new FanfareError("queue_full", `${waitingMax} commands are waiting already`);
      const id = ++lastId;
      const expiry = after(timeoutMs, () => command.settle(new FanfareError("timeout", `no reply in ${timeoutMs} ms`, command.sent)));
      const command: Command = {
        text: JSON.stringify({ name, ...fields, id }),
        mayRepeat,
        sent: false,
        settle(error, reply) {
          waiting.delete(id);
          clearTimeout(expiry);
          if (error) reject(error);
          else resolve(reply);
        },
      };
      waiting.set(id, command);
      flush();
    });

  const flush = () => {
    if (state !== "connected") return;
    for (const command of waiting.values()) {
      if (command.sent) continue;
      command.sent = true;
      socket!.send(command.text);
    }
  };

  const publish = (room: string, message: unknown, { noSelf = false } = {}): Promise<Receipt> =>
    ask(noSelf ? "publish_no_self" : "publish", { room, message });
  const presence = (room: string, query?: object) => ask("presence", { ...query, room }, true);
  const history = (room: string, query?: object) => ask("history", { ...query, room }, true);

  // Rooms ------------------------------------------------------------------------------------------------------------

  const position = ({ epoch, offset }: Room) => epoch && `${epoch}:${offset}`;

  const enter = (room: Room) => {
    if (state !== "connected") return;
    room.id = ++lastId;
    say({ name: "subscribe", room: room.name, since: position(room), id: room.id });
  };

  const refused = (room: Room, error: FanfareError) => {
    rooms.delete(room.name);
    room.reject(error);
    tell(room.options.onError ?? complain, error);
  };

  const entered = (room: Room, { epoch, offset, recovered }: Subscribed) => {
    const { options, epoch: oldEpoch, offset: oldOffset } = room;
    room.isLive = true;
    // When all that was missed follows, this client stands where it stood until it has come.
    if (!oldEpoch || !recovered) Object.assign(room, { epoch, offset });
    const subscribed = { epoch, offset, recovered };
    room.resolve(subscribed);
    tell(options.onSubscribed, subscribed);
    if (recovered) return;
    const isKnown = oldEpoch === epoch && offset > oldOffset;
    const gap = isKnown ? { from: oldOffset + 1, to: offset, count: offset - oldOffset } : {};
    tell(options.onGap, { room: room.name, ...gap });
  };

  const subscribe = (name: string, options: RoomOptions = {}): Subscription => {
    if (rooms.has(name)) throw new FanfareError("already_subscribed", `already subscribed to ${name}`);
    const [epoch, offset] = options.since?.split(":") ?? [];
    const room = { name, options, epoch, offset: Number(offset ?? 0), id: 0, isLive: false } as Room;
    const ready = new Promise<Subscribed>((resolve, reject) => Object.assign(room, { resolve, reject }));
    // Who does not look at it has `onError`.
    ready.catch(() => {});
    rooms.set(name, room);
    enter(room);
    const end = (command: string) => () => {
      if (rooms.get(name) !== room) return;
      rooms.delete(name);
      room.reject(new FanfareError("closed", "unsubscribed"));
      // The id is nobody's, and so is the reply.
      if (state === "connected") say({ name: command, room: name, id: ++lastId });
    };
    return {
      room: name,
      get position() {
        return position(room);
      },
      ready,
      publish: (message) => publish(name, message),
      presence: (query) => presence(name, query),
      history: (query) => history(name, query),
      unsubscribe: end("unsubscribe"),
      leave: end("leave"),
    };
  };

  // Events -----------------------------------------------------------------------------------------------------------

  const hear = (data: string) => {
    heardAt = Date.now();
    try {
      receive(JSON.parse(data));
    } catch (error) {
      // Handlers do not throw here: this is something that no gateway says.
      complain(error);
    }
  };

  const receive = (event: Event) => {
    const { name, id } = event;
    const room = rooms.get(event.room);
    const command = waiting.get(id);
    if (command) {
      return command.settle(name === "error" ? new FanfareError(event.code, event.message, true) : null, event);
    }
    if (name === "welcome") return welcomed(event as any);
    if (name === "drain") return drained(event as any);
    if (name === "subscribed") return room?.id === id && entered(room!, event as any);
    if (name === "error") return failed(event);
    if (event.room === undefined) {
      if (name === "message") tell(options.onMessage, event as any);
      else if (name !== "pong") tell(options.onEvent, event);
    } else if (room?.isLive) {
      roomSaid(room, event);
    }
  };

  const roomSaid = (room: Room, event: Event) => {
    const { onMessage, onJoined, onLeft, onGap, onClosed } = room.options;
    if (event.name === "message") {
      // Where history is off messages carry no number, but there is none between two of them.
      room.offset = event.offset ?? room.offset + 1;
      tell(onMessage, event as any);
    } else if (event.name === "gap") {
      room.offset = event.to ?? room.offset + event.count;
      tell(onGap, event as any);
    } else if (event.name === "joined") tell(onJoined, event as any);
    else if (event.name === "left") tell(onLeft, event as any);
    else if (event.name === "room_closed") {
      rooms.delete(room.name);
      tell(onClosed, undefined);
    } else tell(options.onEvent, event);
  };

  const welcomed = (event: Welcome) => {
    welcome = event;
    guestToken = event.token ?? guestToken;
    connectedAt = Date.now();
    notBefore = 0;
    watch();
    // Rooms first, then what waited, which may be about them; then the handlers, which may do both.
    state = "connected";
    rooms.forEach(enter);
    flush();
    tell(options.onState, state);
    tell(options.onConnect, event);
  };

  const drained = (event: { retry_ms: number }) => {
    notBefore = Date.now() + event.retry_ms;
    // The close follows at once. If it does not, we go by ourselves.
    drainTimer = after(event.retry_ms, () => lost(1012, "drained"));
    tell(options.onDrain, event);
  };

  const failed = (event: Event) => {
    const error = new FanfareError(event.code, event.message, true);
    if (event.id === undefined) return complain(error);
    const room = [...rooms.values()].find((room) => room.id === event.id);
    // Nobody waits for it any more.
    if (!room) return;
    // Refused for the moment: the room is still wanted.
    if (event.code !== "overloaded") return refused(room, error);
    const mine = attempt;
    after(1000 + backOff(6), () => mine === attempt && rooms.get(room.name) === room && enter(room));
  };

  void dial();

  return {
    get state() {
      return state;
    },
    get welcome() {
      return welcome;
    },
    connect() {
      if (state === "connected") watch(true);
      else if (state !== "connecting") void dial();
    },
    close() {
      if (state === "stopped") return;
      drop("closed");
      stop(1000, "closed by this client");
    },
    subscribe,
    publish,
    send: (user, message) => ask("send", { user, message }),
    presence,
    history,
    async ping() {
      const begun = performance.now();
      await ask("ping", {});
      return performance.now() - begun;
    },
  };
}
