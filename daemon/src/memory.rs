//! The heap: set up so that a call leaves no gaps in it, and measured, so that a leak can be told from gaps.
//!
//! glibc maps a large block by itself and gives it back when it is freed, but "large" soon means more than the largest block
//! freed so far; smaller ones come out of a heap, of which there may be eight for each core. A call's rings (1 MB) would lie
//! there among small objects that outlive it, such as its transactions, which SIP keeps for 32 s, and only what lies above
//! the topmost of those is ever given back. Memory then rises for thousands of calls though nothing of them is kept.
//! Source: mallopt(3), mallinfo2(3). Other C libraries are left as they are.
#![allow(unsafe_code)]

/// Blocks of this size or more are mapped by themselves \[octets\]: a call's rings, its leg, its speech.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 64 << 10;
/// Heaps for all threads. The audio thread allocates nothing; the others spend their time elsewhere.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// What is allocated, as the allocator counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    /// In use \[octets\]. What rises here from call to call is a leak.
    pub in_use: usize,
    /// Taken from the system \[octets\]; the difference is gaps.
    pub held: usize,
}

/// Fixes what is a large block and how many heaps there are; call before the first thread starts.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two of the allocator's own parameters; a refusal leaves them as they were.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// The heap now; `None` where the C library does not tell.
#[must_use]
pub fn heap() -> Option<Heap> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: has no conditions; it adds up all heaps, each under its own lock.
        let info = unsafe { libc::mallinfo2() };
        Some(Heap {
            in_use: info.uordblks + info.hblkhd,
            held: info.arena + info.hblkhd,
        })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Blocks of a call's size; never touched, so that they cost the machine nothing.
    const BLOCK: usize = 100 << 10;
    const BLOCKS: usize = 2_000;

    #[test]
    fn large_blocks_among_small_ones_are_given_back() {
        set_up();
        let heap = || heap().expect("glibc tells");
        let before = heap();
        let (large, small): (Vec<_>, Vec<_>) =
            (0..BLOCKS).map(|n| (vec![0u8; BLOCK], Box::new([n; 8]))).unzip();
        let full = heap();
        drop(large);
        let after = heap();
        // Other tests run beside: half of it is far more than they shift.
        let half = BLOCK * BLOCKS / 2;
        assert!(full.in_use > before.in_use + half, "{before:?} {full:?}");
        assert!(after.in_use + half < full.in_use, "{full:?} {after:?}");
        assert!(after.held + half < full.held, "{full:?} {after:?}");
        assert_eq!(
            small.iter().map(|n| n[7]).sum::<usize>(),
            BLOCKS * (BLOCKS - 1) / 2
        );
    }
}
