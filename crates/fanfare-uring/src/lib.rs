//! Many non-blocking sends with one system call, over io_uring.
//!
//! A [`BatchSender`] takes a list of (socket, bytes), submits all of them at once and returns when the kernel has answered all of them. Every send is
//! non-blocking (`MSG_DONTWAIT`), so it is answered during the submission itself: nothing is in flight when [`BatchSender::send`] returns, which is what makes its
//! safe interface sound. What it saves is the entry into the kernel for each socket.
//!
//! Elsewhere than on Linux, and where the kernel or the container forbids io_uring, [`BatchSender::new`] says so and the caller uses plain sends.
//!
//! What it deliberately does not know: what the bytes are, whose the sockets are, and what becomes of those that were not taken.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::BatchSender;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::BatchSender;

use std::os::fd::BorrowedFd;

/// One send of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    /// A connected stream socket.
    pub socket: BorrowedFd<'a>,
    /// What to send.
    pub bytes: &'a [u8],
}

/// What became of one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes were taken; 0 when the socket cannot take any now.
    Taken(usize),
    /// The socket has failed.
    Failed,
}
