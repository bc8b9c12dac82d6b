// Node's `ws`: the path is the room, every message goes to everyone on it; on /echo it goes back.
import { WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.env.PORT), perMessageDeflate: false, backlog: 4096 });
server.on("connection", (socket, request) => {
  if (request.url === "/echo") {
    socket.on("message", (message) => socket.send(message, { binary: false }));
    return;
  }
  let room = rooms.get(request.url);
  if (!room) rooms.set(request.url, (room = new Set()));
  room.add(socket);
  socket.on("message", (message) => {
    for (const member of room) if (member.readyState === 1) member.send(message, { binary: false });
  });
  socket.on("close", () => {
    room.delete(socket);
    if (room.size === 0) rooms.delete(request.url);
  });
});
server.on("listening", () => console.log(`listening on ${process.env.PORT}`));
