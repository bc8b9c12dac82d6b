//! `fanfare-floor`: a server without features, which shows what the kernel alone costs.
//!
//! Every message goes to everyone on the same path, itself included; on `/echo` a connection is alone. There is no limit, no
//! heartbeat, no answer to anything but an upgrade. One thread, one poll, and three ways to send:
//!
//! - `send`: one system call for each message and subscriber, at once;
//! - `coalesce`: one for each subscriber and turn of the loop, with all messages of the turn;
//! - `uring`: the same, the sends of a turn submitted together through io_uring.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;
use base64::Engine;
use clap::{Parser, ValueEnum};
use fanfare_loadtest::frame::{self, Opcode};
use fanfare_loadtest::process::raise_descriptors;
use fanfare_uring::{BatchSender, Send, Sent};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use sha1::{Digest, Sha1};
use slab::Slab;

/// Shows what the kernel alone costs: every message goes to everyone on the same path.
#[derive(Debug, Parser)]
#[command(name = "fanfare-floor", version)]
struct Cli {
    /// Port on loopback
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// How messages are sent
    #[arg(long, value_enum, default_value_t = Mode::Coalesce)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// One system call for each message and subscriber
    Send,
    /// One for each subscriber and turn
    Coalesce,
    /// The sends of a turn submitted together
    Uring,
}

const LISTENER: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 256 * 1_024;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match Floor::new(&cli).and_then(|mut floor| floor.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error gone there is nobody to tell; the exit code remains.
            let _ = writeln!(io::stderr(), "fanfare-floor: {error:#}");
            ExitCode::from(2)
        }
    }
}

struct Connection {
    socket: TcpStream,
    /// Once it is upgraded.
    room: Option<usize>,
    /// Bytes of a head or frame that are not all there.
    partial: Vec<u8>,
    /// What its socket would not take.
    backlog: Vec<u8>,
    wants_write: bool,
    ends: bool,
}

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    /// The messages of this turn, wire-ready.
    batch: Vec<u8>,
}

struct Floor {
    mode: Mode,
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    names: HashMap<String, usize>,
    rooms: Slab<Room>,
    /// Rooms with something in their batch.
    dirty: Vec<usize>,
    /// Pongs and close frames; they follow the batches.
    replies: Vec<(usize, Vec<u8>)>,
    dead: Vec<usize>,
    ring: Option<BatchSender>,
    results: Vec<Sent>,
    scratch: Vec<u8>,
}

impl Floor {
    fn new(cli: &Cli) -> anyhow::Result<Self> {
        raise_descriptors();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cli.port));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into()).with_context(|| format!("cannot listen on {address}"))?;
        socket.listen(4_096)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let ring = match cli.mode {
            Mode::Uring => Some(BatchSender::new(4_096).context("io_uring is not allowed here")?),
            Mode::Send | Mode::Coalesce => None,
        };
        writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
        Ok(Self {
            mode: cli.mode,
            poll,
            listener,
            connections: Slab::new(),
            names: HashMap::new(),
            rooms: Slab::new(),
            dirty: Vec::new(),
            replies: Vec::new(),
            dead: Vec::new(),
            ring,
            results: Vec::new(),
            scratch: Vec::new(),
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.context("the poll failed")?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(place) => {
                        if event.is_writable() {
                            self.write(place, &[]);
                        }
                        self.read(place, &mut buffer);
                    }
                }
            }
            self.flush();
            for (place, reply) in std::mem::take(&mut self.replies) {
                self.write(place, &reply);
            }
            self.bury();
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("cannot accept"),
            };
            socket.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            self.poll.registry().register(&mut socket, Token(entry.key()), Interest::READABLE)?;
            let (partial, backlog) = (Vec::new(), Vec::new());
            entry.insert(Connection { socket, room: None, partial, backlog, wants_write: false, ends: false });
        }
    }

    fn read(&mut self, place: usize, buffer: &mut [u8]) {
        loop {
            let Some(connection) = self.connections.get_mut(place) else { return };
            if connection.ends {
                return;
            }
            match connection.socket.read(buffer) {
                Ok(0) => return self.end(place),
                Ok(length) if connection.partial.is_empty() => {
                    let consumed = self.consume(place, &mut buffer[..length]);
                    if let Some(connection) = self.connections.get_mut(place) {
                        connection.partial.extend_from_slice(&buffer[consumed..length]);
                    }
                    if length < buffer.len() {
                        return;
                    }
                }
                Ok(length) => {
                    let mut partial = std::mem::take(&mut connection.partial);
                    partial.extend_from_slice(&buffer[..length]);
                    let consumed = self.consume(place, &mut partial);
                    partial.drain(..consumed);
                    if let Some(connection) = self.connections.get_mut(place).filter(|_| !partial.is_empty()) {
                        connection.partial = partial;
                    }
                    if length < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.end(place),
            }
        }
    }

    /// Takes what is whole; returns how many bytes that was.
    fn consume(&mut self, place: usize, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        let room = match self.connections[place].room {
            Some(room) => room,
            None => {
                let Some(end) = frame::http_head_end(bytes) else { return 0 };
                at = end;
                let Some(room) = self.upgrade(place, &bytes[..end]) else { return bytes.len() };
                room
            }
        };
        loop {
            let head = match frame::head(&bytes[at..]) {
                Ok(Some(head)) => head,
                Ok(None) => return at,
                Err(_) => {
                    self.end(place);
                    return bytes.len();
                }
            };
            let payload = &mut bytes[at + head.start..at + head.end];
            frame::mask(payload, head.mask.unwrap_or_default());
            self.message(place, room, head.opcode, payload);
            at += head.end;
        }
    }

    fn message(&mut self, place: usize, room: usize, opcode: Opcode, payload: &[u8]) {
        match opcode {
            Opcode::Text | Opcode::Binary | Opcode::Continuation if self.mode == Mode::Send => {
                let mut scratch = std::mem::take(&mut self.scratch);
                scratch.clear();
                frame::write_plain(&mut scratch, opcode, payload);
                for index in 0..self.rooms[room].members.len() {
                    self.write(self.rooms[room].members[index], &scratch);
                }
                self.scratch = scratch;
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                let batch = &mut self.rooms[room].batch;
                if batch.is_empty() {
                    self.dirty.push(room);
                }
                frame::write_plain(batch, opcode, payload);
            }
            Opcode::Ping => self.reply(place, Opcode::Pong, payload),
            Opcode::Close => {
                self.reply(place, Opcode::Close, payload);
                self.connections[place].ends = true;
                self.dead.push(place);
            }
            Opcode::Pong => {}
        }
    }

    fn reply(&mut self, place: usize, opcode: Opcode, payload: &[u8]) {
        let mut reply = Vec::new();
        frame::write_plain(&mut reply, opcode, payload);
        self.replies.push((place, reply));
    }

    /// Answers the upgrade; the path is the room.
    fn upgrade(&mut self, place: usize, head: &[u8]) -> Option<usize> {
        let head = String::from_utf8_lossy(head);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let Some(key) = frame::http_header(&head, "sec-websocket-key") else {
            self.end(place);
            return None;
        };
        let sum = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
        let accept = base64::engine::general_purpose::STANDARD.encode(sum);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.write(place, answer.as_bytes());
        let rooms = &mut self.rooms;
        let room = match path.as_str() {
            "/echo" => rooms.insert(Room::default()),
            _ => *self.names.entry(path).or_insert_with(|| rooms.insert(Room::default())),
        };
        rooms[room].members.push(place);
        self.connections[place].room = Some(room);
        Some(room)
    }

    /// Sends the batches of this turn.
    fn flush(&mut self) {
        for room in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.rooms.get_mut(room) else { continue };
            let mut batch = std::mem::take(&mut entry.batch);
            let members = std::mem::take(&mut entry.members);
            match self.ring.is_some() {
                true => self.submit(&members, &batch),
                false => members.iter().for_each(|&member| self.write(member, &batch)),
            }
            batch.clear();
            self.rooms[room].batch = batch;
            self.rooms[room].members = members;
        }
    }

    /// One submission for all members.
    fn submit(&mut self, members: &[usize], batch: &[u8]) {
        let Some(ring) = &mut self.ring else { return };
        let fit = |&&member: &&usize| self.connections[member].backlog.is_empty();
        let sends: Vec<Send<'_>> = members
            .iter()
            .filter(fit)
            .map(|&member| Send { socket: self.connections[member].socket.as_fd(), bytes: batch })
            .collect();
        let mut results = std::mem::take(&mut self.results);
        results.clear();
        ring.send(&sends, &mut results);
        let mut results_left = results.iter();
        let mut unsent: Vec<(usize, usize)> = Vec::new();
        for &member in members {
            if !self.connections[member].backlog.is_empty() {
                unsent.push((member, 0));
                continue;
            }
            match results_left.next() {
                Some(&Sent::Taken(taken)) if taken < batch.len() => unsent.push((member, taken)),
                Some(Sent::Taken(_)) => {}
                Some(Sent::Failed) | None => self.dead.push(member),
            }
        }
        for (member, taken) in unsent {
            self.write(member, &batch[taken..]);
        }
        self.results = results;
    }

    /// Writes what the socket takes; the rest waits.
    fn write(&mut self, place: usize, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        let Connection { socket, backlog, wants_write, .. } = connection;
        let waiting = !backlog.is_empty();
        if waiting {
            backlog.extend_from_slice(bytes);
        }
        let mut sent = 0;
        loop {
            let rest = if waiting { &backlog[sent..] } else { &bytes[sent..] };
            if rest.is_empty() {
                break;
            }
            match socket.write(rest) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.dead.push(place);
                    return;
                }
            }
        }
        if waiting {
            backlog.drain(..sent);
        } else {
            backlog.extend_from_slice(&bytes[sent..]);
        }
        if *wants_write == backlog.is_empty() {
            *wants_write = !backlog.is_empty();
            let interest = if *wants_write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            if self.poll.registry().reregister(socket, Token(place), interest).is_err() {
                self.dead.push(place);
            }
        }
    }

    fn end(&mut self, place: usize) {
        if let Some(connection) = self.connections.get_mut(place) {
            connection.ends = true;
            self.dead.push(place);
        }
    }

    fn bury(&mut self) {
        for place in std::mem::take(&mut self.dead) {
            let Some(connection) = self.connections.try_remove(place) else { continue };
            let Some(room) = connection.room else { continue };
            let members = &mut self.rooms[room].members;
            if let Some(at) = members.iter().position(|&member| member == place) {
                members.swap_remove(at);
            }
            if members.is_empty() {
                self.rooms.remove(room);
                self.names.retain(|_, &mut named| named != room);
            }
        }
        self.dirty.retain(|&room| self.rooms.contains(room));
    }
}
