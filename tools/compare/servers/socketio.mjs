// Socket.IO over its WebSocket transport: the query says the room; `publish` goes to the room as `message`.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, maxHttpBufferSize: 1 << 20 });
io.on("connection", (socket) => {
  const { room, apart } = socket.handshake.query;
  if (!apart) socket.join(room);
  socket.on("publish", (message) => io.to(room).emit("message", message));
  socket.on("join", () => {
    socket.join(room);
    socket.emit("joined");
  });
  socket.on("leave", () => {
    socket.leave(room);
    socket.emit("left");
  });
});
http.listen({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096 }, () => console.log(`listening on ${process.env.PORT}`));
