// The client and the server library as they are published: node clients.cjs PORT PYTHON BACKEND
const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const { promisify } = require("node:util");
const Pusher = require("pusher-js");
const PusherServer = require("pusher");

const [port, python, backend] = process.argv.slice(2);
// Of tests/steady.mjs.
let PATIENCE_MS;
const open = [];
const server = new PusherServer({
  appId: "1001", key: "k7", secret: "k7-secret", host: "127.0.0.1", port, useTLS: false, encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString("base64"),
});

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited for ${what}`)), PATIENCE_MS); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// A client whose application signs whatever it asks for, but `refused`.
function client(options = {}) {
  const authorize = (sign) => (params, callback) => {
    try { callback(null, sign(params)); } catch (error) { callback(error, null); }
  };
  const pusher = new Pusher(options.key ?? "k7", {
    cluster: "", wsHost: "127.0.0.1", wsPort: port, forceTLS: false, enabledTransports: ["ws"], disableStats: true,
    channelAuthorization: {
      customHandler: authorize(({ socketId, channelName }) => {
        const data = options.user ? { user_id: options.user, user_info: { name: options.user.toUpperCase() } } : undefined;
        const signed = server.authorizeChannel(socketId, channelName, channelName.startsWith("presence-") ? data : undefined);
        return options.wrong ? { ...signed, auth: "k7:" + "0".repeat(64) } : signed;
      }),
    },
    userAuthentication: {
      customHandler: authorize(({ socketId }) => server.authenticateUser(socketId, { id: options.user, user_info: { name: options.user } })),
    },
  });
  open.push(pusher);
  return pusher;
}

const event = (from, name) => within(`${name}`, new Promise((resolve) => {
  const heard = (data, metadata) => { from.unbind(name, heard); resolve([data, metadata]); };
  from.bind(name, heard);
}));
const subscribed = (pusher, channel) => event(pusher.subscribe(channel), "pusher:subscription_succeeded");
const connected = (pusher) => pusher.connection.state === "connected" ? undefined : event(pusher.connection, "connected");

const tests = {
  async "a client hears what the backend says"() {
    const pusher = client();
    await connected(pusher);
    await subscribed(pusher, "kitchen");
    const heard = event(pusher.channel("kitchen"), "order-up");
    assert.equal((await server.trigger("kitchen", "order-up", { table: 7 })).status, 200);
    assert.deepEqual((await heard)[0], { table: 7 });
    const text = event(pusher.channel("kitchen"), "text");
    await server.trigger("kitchen", "text", "not JSON: {");
    assert.equal((await text)[0], "not JSON: {");
  },
  async "a private channel and what its members say to each other"() {
    const [ada, bea] = [client(), client()];
    for (const pusher of [ada, bea]) await subscribed(pusher, "private-office");
    const heard = event(bea.channel("private-office"), "client-typing");
    assert.ok(ada.channel("private-office").trigger("client-typing", { on: true }));
    assert.deepEqual((await heard)[0], { on: true });
    const [forAda, forBea] = [event(ada.channel("private-office"), "second"), event(bea.channel("private-office"), "first")];
    await server.trigger("private-office", "first", "1", { socket_id: ada.connection.socket_id });
    ada.channel("private-office").bind("first", () => assert.fail("it caused it"));
    await server.trigger("private-office", "second", "2");
    await Promise.all([forAda, forBea]);
  },
  async "members of a presence channel know each other"() {
    const [ada, bea] = [client({ user: "ada" }), client({ user: "bea" })];
    await subscribed(ada, "presence-office");
    const room = ada.channel("presence-office");
    assert.deepEqual([room.members.count, room.members.me.id, room.members.me.info], [1, "ada", { name: "ADA" }]);
    const came = event(room, "pusher:member_added");
    const [members] = await subscribed(bea, "presence-office");
    assert.equal(members.count, 2);
    assert.deepEqual(members.get("ada").info, { name: "ADA" });
    assert.deepEqual((await came)[0], { id: "bea", info: { name: "BEA" } });
    const heard = event(room, "client-wave");
    assert.ok(bea.channel("presence-office").trigger("client-wave", { to: "ada" }));
    assert.deepEqual(await heard, [{ to: "ada" }, { user_id: "bea" }]);
    const users = await server.get({ path: "/channels/presence-office/users" });
    assert.deepEqual(await users.json(), { users: [{ id: "ada" }, { id: "bea" }] });
    const went = event(room, "pusher:member_removed");
    bea.disconnect();
    assert.equal((await went)[0].id, "bea");
    assert.equal(room.members.count, 1);
  },
  async "a wrong signature is told to the channel"() {
    const pusher = client({ wrong: true });
    const [error] = await event(pusher.subscribe("private-office"), "pusher:subscription_error");
    assert.equal(error.type, "AuthError");
    assert.equal(error.status, 401);
    await subscribed(pusher, "still-here");
  },
  async "what is encrypted is passed through"() {
    const pusher = client();
    await subscribed(pusher, "private-encrypted-office");
    const heard = event(pusher.channel("private-encrypted-office"), "secret");
    await server.trigger("private-encrypted-office", "secret", { word: "swordfish" });
    assert.deepEqual((await heard)[0], { word: "swordfish" });
  },
  async "batches and questions of the library for Node"() {
    const pusher = client();
    await subscribed(pusher, "batched");
    const heard = [];
    const all = new Promise((resolve) => pusher.channel("batched").bind("n", (n) => { heard.push(n); if (heard.length === 3) resolve(); }));
    await server.triggerBatch([1, 2, 3].map((n) => ({ channel: "batched", name: "n", data: n })));
    await within("a batch", all);
    assert.deepEqual(heard, [1, 2, 3]);
    const answer = await server.get({ path: "/channels/batched", params: { info: "subscription_count" } });
    assert.deepEqual(await answer.json(), { occupied: true, subscription_count: 1 });
    const wrong = new PusherServer({ appId: "1001", key: "k7", secret: "wrong", host: "127.0.0.1", port, useTLS: false });
    await assert.rejects(wrong.trigger("kitchen", "e", {}), (error) => error.status === 401);
  },
  async "who comes to a cache channel is told its last event, or that none is known"() {
    const [ada, bea] = [client(), client()];
    const missed = event(ada.subscribe("cache-menu"), "pusher:cache_miss");
    await missed;
    const heard = event(ada.channel("cache-menu"), "dish");
    await server.trigger("cache-menu", "dish", { name: "soup" });
    assert.deepEqual((await heard)[0], { name: "soup" });
    const cached = event(bea.subscribe("cache-menu"), "dish");
    bea.channel("cache-menu").bind("pusher:cache_miss", () => assert.fail("it is known"));
    assert.deepEqual((await cached)[0], { name: "soup" });
    const answer = await (await server.get({ path: "/channels/cache-menu", params: { info: "cache" } })).json();
    assert.equal(answer.cache.data, '{"name":"soup"}', JSON.stringify(answer));
    const secret = client();
    await server.trigger("private-encrypted-cache-menu", "dish", { name: "swordfish" });
    assert.deepEqual((await event(secret.subscribe("private-encrypted-cache-menu"), "dish"))[0], { name: "swordfish" });
  },
  async "a user signs in, is told something, and is sent away"() {
    const [ada, bea] = [client({ user: "ada" }), client({ user: "bea" })];
    for (const pusher of [ada, bea]) {
      await connected(pusher);
      pusher.signin();
      await within("the sign-in", pusher.user.signinDonePromise);
    }
    assert.equal(ada.user.user_data.id, "ada");
    bea.user.bind("note", () => assert.fail("it is for somebody else"));
    await within("the channel", new Promise((resolve) => {
      const look = () => ada.user.serverToUserChannel?.subscribed ? resolve() : setTimeout(look, 10);
      look();
    }));
    const noted = event(ada.user, "note");
    await server.sendToUser("ada", "note", { n: 1 });
    assert.deepEqual((await noted)[0], { n: 1 });
    const fromPython = event(ada.user, "from-python");
    await within("Python", promisify(execFile)(python, [backend, port, "1.1"]));
    assert.deepEqual((await fromPython)[0], { n: 2 });
    const gone = event(ada.connection, "disconnected");
    await server.terminateUserConnections("ada");
    await gone;
    assert.equal(bea.connection.state, "connected");
  },
  async "the library for Python"() {
    const [ada, bea] = [client(), client()];
    for (const pusher of [ada, bea]) {
      await subscribed(pusher, "kitchen");
      await subscribed(pusher, "private-office");
    }
    const first = event(ada.channel("kitchen"), "from-python");
    const other = event(bea.channel("private-office"), "not-to-one");
    ada.bind("not-to-one", () => assert.fail("it caused it"));
    const batch = [];
    const all = new Promise((resolve) => ada.channel("kitchen").bind("batched", (n) => { batch.push(n); if (batch.length === 2) resolve(); }));
    const { stdout } = await within("Python", promisify(execFile)(python, [backend, port, ada.connection.socket_id]));
    assert.deepEqual((await first)[0], { table: 7 });
    assert.equal((await other)[0], "ünï");
    await within("a batch", all);
    assert.deepEqual(batch, [1, 2]);
    const told = JSON.parse(stdout);
    assert.ok("kitchen" in told.channels.channels && "private-office" in told.private.channels && !("kitchen" in told.private.channels), stdout);
    assert.equal(told.kitchen.occupied, true);
    assert.ok(told.kitchen.subscription_count >= 2, stdout);
    assert.ok(told.refused, stdout);
  },
  async "a key that nobody has is not tried again"() {
    const pusher = client({ key: "nobody" });
    const [error] = await event(pusher.connection, "error");
    assert.equal(error.error?.data?.code ?? error.data?.code, 4001, JSON.stringify(error));
    await within("the state", new Promise((resolve) => {
      if (pusher.connection.state === "disconnected") resolve();
      pusher.connection.bind("disconnected", resolve);
    }));
  },
};

(async () => {
  ({ PATIENCE_MS } = await import("../../tests/steady.mjs"));
  const failures = [];
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok   ${name}`);
    } catch (error) {
      failures.push(`FAIL ${name}\n${error.stack}`);
      console.error(failures.at(-1));
    }
    open.splice(0).forEach((pusher) => pusher.disconnect());
  }
  // Once more at the end, where a log that was cut still has it.
  if (failures.length) console.error(`\n${failures.join("\n")}`);
  process.exit(failures.length ? 1 : 0);
})();
