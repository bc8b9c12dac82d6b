//! The Linux implementation.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode, types};

use crate::{Send, Sent};

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_NOSIGNAL: i32 = 0x4000;

/// Submits many sends at once. Use it on the thread that made it: the ring has one issuer.
pub struct BatchSender {
    ring: IoUring,
    sends_max: usize,
}

impl BatchSender {
    /// A sender for up to `sends_max` sends a system call; longer batches take several.
    ///
    /// # Errors
    /// When the kernel is too old or its policy (seccomp in containers, `kernel.io_uring_disabled`) forbids io_uring.
    pub fn new(sends_max: u32) -> io::Result<Self> {
        let sends_max = sends_max.clamp(1, 4_096).next_power_of_two();
        // Newer kernels can run completions on our thread alone, when it asks; older ones refuse the flags.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .dontfork()
            .build(sends_max)
            .or_else(|_| IoUring::builder().dontfork().build(sends_max))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel's io_uring cannot send"));
        }
        Ok(Self { ring, sends_max: sends_max as usize })
    }

    /// Sends all, in order, and appends one result each, in the same order.
    pub fn send(&mut self, sends: &[Send<'_>], results: &mut Vec<Sent>) {
        for chunk in sends.chunks(self.sends_max) {
            self.send_chunk(chunk, results);
        }
    }

    fn send_chunk(&mut self, sends: &[Send<'_>], results: &mut Vec<Sent>) {
        let base = results.len();
        results.resize(base + sends.len(), Sent::Failed);
        {
            let mut queue = self.ring.submission();
            for (index, send) in sends.iter().enumerate() {
                let len = u32::try_from(send.bytes.len()).unwrap_or(u32::MAX);
                let entry = opcode::Send::new(types::Fd(send.socket.as_raw_fd()), send.bytes.as_ptr(), len)
                    .flags(MSG_DONTWAIT | MSG_NOSIGNAL)
                    .build()
                    .user_data(index as u64);
                // SAFETY: `entry` points into `sends`, whose sockets and bytes are borrowed for this whole call, and this
                // function does not return (nor unwind: it aborts instead) before the kernel has answered every entry.
                if unsafe { queue.push(&entry) }.is_err() {
                    // A chunk is not longer than the ring, and the ring is empty between chunks.
                    abort("the ring is full before it is submitted");
                }
            }
        }
        self.await_all(sends.len(), &mut results[base..]);
    }

    /// Submits and collects until every send has been answered.
    fn await_all(&mut self, mut owed: usize, results: &mut [Sent]) {
        while owed > 0 {
            if let Err(error) = self.ring.submit_and_wait(owed)
                && error.raw_os_error() != Some(EINTR)
                && error.raw_os_error() != Some(EAGAIN)
            {
                // This does not happen while the ring is ours and its memory is mapped.
                abort(error);
            }
            for completion in self.ring.completion() {
                let Some(result) = results.get_mut(completion.user_data() as usize) else { continue };
                *result = match completion.result() {
                    taken @ 0.. => Sent::Taken(taken as usize),
                    error if error == -EAGAIN || error == -EINTR => Sent::Taken(0),
                    _ => Sent::Failed,
                };
                owed -= 1;
            }
        }
    }
}

/// The kernel holds, or will be given, pointers into memory that the caller is about to reuse: there is no safe way on, nor one back.
fn abort(why: impl fmt::Display) -> ! {
    eprintln!("io_uring failed with sends under way: {why}");
    std::process::abort()
}

impl fmt::Debug for BatchSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchSender").field("sends_max", &self.sends_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    /// A container may forbid io_uring; then there is nothing here to test, and the sender must say so.
    fn sender(sends_max: u32) -> Option<BatchSender> {
        match BatchSender::new(sends_max) {
            Ok(sender) => Some(sender),
            Err(error) => {
                assert!(matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::Other
                ));
                None
            }
        }
    }

    #[test]
    fn all_sends_arrive_in_order_and_are_answered_in_order() {
        let Some(mut sender) = sender(8) else { return };
        let pairs: Vec<_> = (0..50).map(|_| UnixStream::pair().expect("a pair")).collect();
        for round in 0..200u32 {
            let bytes: Vec<Vec<u8>> = (0..50u32).map(|n| vec![(round + n) as u8; 1 + (n as usize * 7) % 100]).collect();
            let sends: Vec<_> =
                pairs.iter().zip(&bytes).map(|((to, _), bytes)| Send { socket: to.as_fd(), bytes }).collect();
            let mut results = Vec::new();
            sender.send(&sends, &mut results);
            for (((_, from), bytes), result) in pairs.iter().zip(&bytes).zip(&results) {
                assert_eq!(*result, Sent::Taken(bytes.len()));
                let mut got = vec![0; bytes.len()];
                (&*from).read_exact(&mut got).expect("what was sent");
                assert_eq!(&got, bytes);
            }
        }
    }

    #[test]
    fn a_full_socket_takes_nothing_and_a_closed_one_fails() {
        let Some(mut sender) = sender(4) else { return };
        let (full, _full_peer) = UnixStream::pair().expect("a pair");
        let (closed, closed_peer) = UnixStream::pair().expect("a pair");
        let (fine, mut fine_peer) = UnixStream::pair().expect("a pair");
        drop(closed_peer);
        let block = vec![7; 1 << 20];
        let mut results = Vec::new();
        while results.last() != Some(&Sent::Taken(0)) {
            sender.send(&[Send { socket: full.as_fd(), bytes: &block }], &mut results);
            assert!(results.len() < 1_000, "a socket that nobody reads fills up");
        }
        results.clear();
        let sends = [
            Send { socket: full.as_fd(), bytes: b"a" },
            Send { socket: closed.as_fd(), bytes: b"b" },
            Send { socket: fine.as_fd(), bytes: b"c" },
        ];
        sender.send(&sends, &mut results);
        assert_eq!(results, [Sent::Taken(0), Sent::Failed, Sent::Taken(1)]);
        let mut got = [0];
        fine_peer.read_exact(&mut got).expect("what was sent");
        assert_eq!(got, *b"c");
    }
}
