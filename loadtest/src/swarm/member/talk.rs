//! What one connection hears and says.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::core::Core;
use super::super::nanoseconds;
use super::super::socket::Socket;
use super::{End, Member, Roaming, Stage};
use crate::dialect::Heard;
use crate::frame::{self, Head, Opcode};

impl Member {
    pub(super) fn upgraded(&mut self, core: &mut Core) {
        core.measured.handshake.saturating_record(nanoseconds(self.begun.elapsed()));
        if core.measured.tls.is_none() {
            core.measured.tls = self.socket.as_ref().and_then(Socket::suite);
        }
        self.stage = Stage::Subscribing;
        let ready = self.session.as_mut().is_none_or(|session| session.opened(&mut self.out));
        if ready {
            self.ready(core);
        }
    }

    /// The session is subscribed.
    fn ready(&mut self, core: &mut Core) {
        self.stage = Stage::Open;
        core.opening -= 1;
        core.lane().ready.fetch_add(1, Ordering::Relaxed);
        if self.is_waited_for() {
            core.shared.present[self.room].fetch_add(1, Ordering::Relaxed);
        }
        // It came by connecting; the answer proves that it is subscribed.
        self.must_ask = self.roaming == Roaming::Joining || self.asking;
    }

    /// Does what was decided while the session was busy.
    pub(super) fn follow_up(&mut self) {
        if std::mem::take(&mut self.must_ask) {
            self.ask();
        }
        if std::mem::take(&mut self.must_leave) {
            self.leave();
        }
    }

    pub(super) fn frame(&mut self, core: &mut Core, head: Head, payload: &[u8]) -> Result<(), End> {
        match head.opcode {
            Opcode::Text | Opcode::Binary if head.last => self.message(core, payload),
            Opcode::Text | Opcode::Binary => {
                self.fragments.clear();
                self.fragments.extend_from_slice(payload);
            }
            Opcode::Continuation => {
                self.fragments.extend_from_slice(payload);
                if self.fragments.len() > frame::MESSAGE_BYTES_MAX {
                    return Err(End::Closed(1009, "by this program: a message is too long".into()));
                }
                if head.last {
                    let message = std::mem::take(&mut self.fragments);
                    self.message(core, &message);
                }
            }
            Opcode::Ping => self.out.frame(Opcode::Pong, &[payload]),
            Opcode::Pong => self.heard(core, Heard::Answer),
            Opcode::Close => {
                let (code, reason) = match payload {
                    [high, low, reason @ ..] => {
                        (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
                    }
                    _ => (1005, String::new()),
                };
                return Err(End::Closed(code, reason));
            }
        }
        Ok(())
    }

    fn message(&mut self, core: &mut Core, message: &[u8]) {
        core.arrivals += 1;
        let Some(mut session) = self.session.take() else { return };
        let mut out = std::mem::take(&mut self.out);
        session.incoming(message, &mut out, &mut |heard| self.heard(core, heard));
        self.session = Some(session);
        // A publication that was heard may not write, so nothing was put into the other.
        out.bytes.append(&mut self.out.bytes);
        self.out = out;
    }

    fn heard(&mut self, core: &mut Core, heard: Heard<'_>) {
        match heard {
            Heard::Payload(payload) => self.deliver(core, payload),
            Heard::Gap(count) => {
                self.receiver.announce(count);
                self.passed_over(count);
                core.lane().announced.fetch_add(count, Ordering::Relaxed);
            }
            Heard::Ready if self.stage == Stage::Subscribing => self.ready(core),
            Heard::Answer => self.answer(core),
            Heard::Joined if self.roaming == Roaming::Joining => self.joined(core),
            Heard::Left if self.roaming == Roaming::Leaving => self.roaming = Roaming::Rests,
            Heard::Ready | Heard::Joined | Heard::Left => {}
            Heard::Shard(shard) => self.shard = Some(shard),
            Heard::Placed(position, recovered) => self.placed(core, position, recovered),
            Heard::Offset(offset) => self.numbered(core, offset),
            Heard::Drain(retry_ms) => self.sent_away(retry_ms),
            Heard::Corrupt => self.receiver.take_corrupt(),
            Heard::Refused(why) => core.measured.error(format!("the gateway answered {why}")),
        }
    }

    fn deliver(&mut self, core: &mut Core, payload: &[u8]) {
        let Some(stamp) = core.stamps.read(payload) else { return self.receiver.take_corrupt() };
        if !self.receiver.accept(stamp) || !self.is_waited_for() {
            return;
        }
        core.delivered(self.room, stamp);
    }

    fn answer(&mut self, core: &mut Core) {
        if std::mem::take(&mut self.asking) {
            core.lane().answers[self.answered].fetch_add(1, Ordering::Relaxed);
            self.answered += 1;
            return;
        }
        match self.roaming {
            Roaming::Joining => self.joined(core),
            Roaming::Leaving => self.roaming = Roaming::Rests,
            Roaming::No | Roaming::Rests | Roaming::Calm => {}
        }
    }

    fn joined(&mut self, core: &mut Core) {
        core.measured.joining.saturating_record(nanoseconds(self.asked.elapsed()));
        core.lane().joins.fetch_add(1, Ordering::Relaxed);
        self.roaming = Roaming::Leaving;
        self.must_leave = true;
    }

    /// One that rests asks to join. False when it must come anew for that.
    pub(in super::super) fn join(&mut self) -> bool {
        self.roaming = Roaming::Joining;
        self.asked = Instant::now();
        self.receiver.begin_stay();
        if self.stage != Stage::Open {
            return false;
        }
        let by_command = self.session.as_mut().is_some_and(|session| session.join(true, &mut self.out));
        if !by_command {
            // The first time it is here already.
            self.ask();
        }
        true
    }

    fn leave(&mut self) {
        let by_command = self.session.as_mut().is_some_and(|session| session.join(false, &mut self.out));
        if !by_command {
            self.close();
        }
    }

    /// Publishes `payload`.
    pub(in super::super) fn publish(&mut self, payload: &str) {
        if let Some(session) = &mut self.session {
            session.publish(payload.as_bytes(), &mut self.out);
        }
    }

    fn ask(&mut self) {
        if let Some(session) = &mut self.session {
            session.ask(&mut self.out);
        }
    }

    /// Asks the next question of the swarm.
    pub(in super::super) fn question(&mut self) {
        if self.stage == Stage::Open {
            self.asking = true;
            self.ask();
        } else if self.was_here() {
            // It answers when it is back.
            self.asking = self.stage != Stage::Gone;
        }
    }
}
