//! The allocator of the program, and how memory goes back to the system.
//!
//! A gateway frees on one thread what another allocated (frames are shared between shards), makes and drops many small buffers at connection churn, and lives for
//! months. mimalloc is built for just that: frees from other threads go to a lock-free list of the page instead of to a contended arena. It is built not to
//! ask for huge pages (`no_thp`), and [`use_small_pages`] refuses those that the system gives unasked: 2 MiB become resident where a few KiB are needed,
//! and stay as long as one of them is.
//!
//! mimalloc returns free pages to the system in passing, while it allocates. A gateway that a crowd has left does not, so it says when: [`give_back`].
//! That is the crate's one call that Rust cannot check, and the reason for the crate.
//!
//! What it deliberately does not know: who asks for memory, and when a crowd has left.

/// The allocator, for `#[global_allocator]`.
pub use mimalloc::MiMalloc as Allocator;

/// Has all memory of this process in pages of the usual size from here on. To be called first of all; where the system has no such switch, or does not allow
/// it, memory comes and goes in larger pieces and nothing else is different.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Gives memory that is free back to the system: what this thread has freed, and what all threads have given up. Takes as long as looking at all of this
/// thread's pages does: not for a moment in which somebody waits. Does nothing where the program uses another allocator.
pub fn give_back() {
    // SAFETY: `mi_collect` takes no pointer and may be called by any thread at any time. It touches no block that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    /// Resident memory of this process, bytes.
    #[cfg(target_os = "linux")]
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("our own /proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for it");
        line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1_024
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_was_freed_goes_back_to_the_system() {
        const BLOCKS: usize = 100_000;
        const BYTES: usize = 400;
        give_back();
        let before = resident();
        let blocks: Vec<_> = (0..BLOCKS).map(|_| vec![1_u8; BYTES]).collect();
        assert!(resident() >= before + BLOCKS * BYTES, "they are resident while they are in use");
        drop(blocks);
        assert!(
            resident() >= before + BLOCKS * BYTES / 2,
            "freeing alone gives nothing back; then this crate is not needed"
        );
        give_back();
        assert!(
            resident() < before + BLOCKS * BYTES / 10,
            "{} of {} bytes are still here",
            resident() - before,
            BLOCKS * BYTES
        );
    }
}
