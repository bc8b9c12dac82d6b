// Bun's own server: the path is the room, every message goes to everyone on it; on /echo it goes back.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch(request, server) {
    const room = new URL(request.url).pathname;
    return server.upgrade(request, { data: room }) ? undefined : new Response("upgrade", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 1 << 20,
    backpressureLimit: 64 << 20,
    open(ws) {
      if (ws.data !== "/echo") ws.subscribe(ws.data);
    },
    message(ws, message) {
      if (ws.data === "/echo") ws.send(message);
      else server.publish(ws.data, message);
    },
  },
});
console.log(`listening on ${server.port}`);
