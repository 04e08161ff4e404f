//! The read-only mapping of a model file, and anonymous reserved memory: the only place that maps anything.
//!
//! A truncated file or a failing card turns a read of a mapping into a bus error, which would end the process. The guard
//! installed here puts a page of zeros over the bad one and marks the mapping damaged, so that the step finishes and its
//! request ends with an error.

#![expect(unsafe_code, reason = "mappings, the bus-error handler and freed memory; each block states why it holds")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions, UncheckedAdvice};

/// A model file mapped read-only. Dereferences to its bytes.
pub struct Map {
    mmap: Mmap,
    guard: Option<usize>,
    /// Held open so that `damaged` can see a truncation that no read has met yet.
    file: File,
}

impl Map {
    /// Maps a whole file.
    ///
    /// # Errors
    /// When the file cannot be mapped, or its size changed while it was.
    pub fn open(file: File) -> io::Result<Map> {
        let len = file.metadata()?.len();
        // SAFETY: the mapping is read-only and shared. Another process may still change the file: bytes of weights have no
        // invalid values, text is checked when it is read, and a shrunk file is what the guard below is for.
        let mmap = unsafe { MmapOptions::new().map(&file)? };
        if file.metadata()?.len() != len || mmap.len() as u64 != len {
            return Err(io::Error::other("the file changed its size while it was opened"));
        }
        let guard = watch(&mmap);
        Ok(Map { mmap, guard, file })
    }

    /// Asks the system to read a range soon. A hint: failure means only that pages come later.
    pub fn will_need(&self, offset: usize, len: usize) {
        _ = self.mmap.advise_range(Advice::WillNeed, offset, len);
    }

    /// Whether a read met a bad page, or the file is shorter than the mapping: its weights can no longer be trusted.
    pub fn damaged(&self) -> bool {
        let marked = self.guard.is_some_and(|slot| WATCHED[slot].damaged.load(Ordering::Acquire));
        marked || self.file.metadata().is_ok_and(|m| m.len() < self.mmap.len() as u64)
    }
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.mmap
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let Some(slot) = self.guard {
            WATCHED[slot].end.store(0, Ordering::Release);
            WATCHED[slot].start.store(0, Ordering::Release);
        }
    }
}

/// Anonymous memory of which the system commits pages as they are touched.
pub(crate) struct Reserved(MmapMut);

impl Reserved {
    /// Reserves `len` zeroed bytes.
    ///
    /// # Errors
    /// When the address range cannot be had.
    pub(crate) fn new(len: usize) -> io::Result<Reserved> {
        MmapOptions::new().len(len).no_reserve_swap().map_anon().map(Reserved)
    }

    /// Gives back the pages of a range, whose bytes become zeros. The range is cut inwards to whole pages.
    pub(crate) fn give_back(&mut self, offset: usize, len: usize) {
        let page = page_bytes();
        let (start, end) = (offset.next_multiple_of(page), (offset + len) / page * page);
        if start < end {
            // SAFETY: DontNeed turns the pages to zeros, which are valid for the byte slice this type hands out, and
            // `&mut self` means that nobody holds a reference into it. Failure only keeps memory longer.
            _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}

impl Deref for Reserved {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Reserved {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Gives memory that was freed back to the system; the C library keeps whole pages of it for later.
pub fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it asks nothing of its caller.
    unsafe {
        libc::malloc_trim(0);
    }
}

struct Watched {
    start: AtomicUsize,
    end: AtomicUsize,
    damaged: AtomicBool,
}

/// Mappings the handler knows. More than this many open models at once go unguarded, far beyond any memory budget.
static WATCHED: [Watched; 64] =
    [const { Watched { start: AtomicUsize::new(0), end: AtomicUsize::new(0), damaged: AtomicBool::new(false) } }; 64];

fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("the page size is positive")
}

fn watch(bytes: &[u8]) -> Option<usize> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(install);
    let start = bytes.as_ptr() as usize;
    let slot = WATCHED.iter().position(|w| w.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok())?;
    WATCHED[slot].damaged.store(false, Ordering::Release);
    WATCHED[slot].end.store(start + bytes.len(), Ordering::Release);
    Some(slot)
}

fn install() {
    // SAFETY: `action` is a valid sigaction whose handler uses only atomics, sysconf, mmap, signal and raise, all of which
    // may be called from a handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let page = page_bytes();
    for watched in &WATCHED {
        let (start, end) = (watched.start.load(Ordering::Acquire), watched.end.load(Ordering::Acquire));
        if (start..end.next_multiple_of(page)).contains(&address) {
            watched.damaged.store(true, Ordering::Release);
            let at = (address / page * page) as *mut libc::c_void;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            // SAFETY: the page lies inside a mapping of ours that is only read; zeros are valid bytes for its readers.
            if unsafe { libc::mmap(at, page, libc::PROT_READ, flags, -1, 0) } != libc::MAP_FAILED {
                return;
            }
        }
    }
    // Not ours: end as an unguarded process would.
    // SAFETY: resetting and raising a signal is allowed in a handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_truncated_file_reads_as_zeros_and_is_marked() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        let map = Map::open(file.try_clone().unwrap()).unwrap();
        assert_eq!((map[99_999], map.damaged()), (7, false));
        file.set_len(10).unwrap();
        assert!(map.damaged(), "the shrunk file is noticed before any read");
        assert_eq!(map[99_999], 0, "a read beyond the new end meets zeros");
        assert!(WATCHED[map.guard.unwrap()].damaged.load(Ordering::Acquire), "and marks the mapping");
    }

    #[test]
    fn given_back_pages_are_zero() {
        let mut memory = Reserved::new(1 << 20).unwrap();
        memory.fill(1);
        memory.give_back(1 << 19, 1 << 19);
        assert_eq!((memory[0], memory[(1 << 20) - 1]), (1, 0));
    }
}
