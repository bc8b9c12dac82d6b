// A program that is compiled and never run: each line below must be, or must not be, a type error.

import { connect, FanfareError, type Client, type Gap, type Receipt, type Subscription } from "fanfare-client";

interface Said {
  text: string;
}

const client: Client = connect("wss://gateway.test/ws", {
  getToken: async () => "token",
  onState: (state) => state satisfies "connecting" | "connected" | "waiting" | "stopped",
  onDisconnect: ({ code, reason, retryMs }) => [code.toFixed(), reason.trim(), retryMs?.toFixed()],
});

const room: Subscription = client.subscribe<Said>("lobby", {
  onMessage: ({ message, user, offset }) => [message.text.trim(), user?.trim(), offset?.toFixed()],
  onGap: (gap: Gap) => gap.count?.toFixed(),
  onError: (error) => error.code satisfies string,
});

const receipt: Promise<Receipt> = room.publish({ text: "hi" });
receipt.catch((error: unknown) => error instanceof FanfareError && error.sent);

// @ts-expect-error a message has the type that was asked for
client.subscribe<Said>("lobby", { onMessage: ({ message }) => message.colour });
// @ts-expect-error an option that does not exist
connect("wss://gateway.test/ws", { tokn: "a" });
// @ts-expect-error nobody sets the state
client.state = "connected";
