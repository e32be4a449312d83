//! Linear memory of all guests of this process together: counted, and shown to whoever looks from
//! outside, in a memory file that is found by its name among the host's descriptors.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

/// The count.
#[derive(Debug, Default)]
pub(crate) struct MemoryUse {
    bytes: AtomicU64,
    shown: Option<File>,
}

impl MemoryUse {
    /// A count that is shown where the kernel gives a memory file for it.
    #[cfg(any(feature = "host", test))]
    pub(crate) fn shown() -> Self {
        #[cfg(target_os = "linux")]
        let shown = sys::sealed::open(runtime::LINEAR_MEMORY).ok();
        #[cfg(not(target_os = "linux"))]
        let shown: Option<File> = None;
        Self {
            bytes: AtomicU64::default(),
            shown: shown.map(File::from),
        }
    }

    /// Adds bytes; how many there were before.
    pub(crate) fn add(&self, bytes: u64) -> u64 {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.show();
        before
    }

    /// Takes bytes away.
    pub(crate) fn sub(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.show();
    }

    /// How many there are.
    pub(crate) fn get(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whoever was overtaken by another thread writes what holds now.
    fn show(&self) {
        let Some(file) = &self.shown else { return };
        loop {
            let bytes = self.get();
            // What is shown is for people; a guest goes on without.
            let written = sys::file::write_all_at(file, &bytes.to_le_bytes(), 0);
            if written.is_err() || self.get() == bytes {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_shown_in_the_file() {
        let used = MemoryUse::shown();
        assert_eq!(used.add(7), 0);
        used.sub(2);
        let mut bytes = [0; 8];
        let file = used.shown.as_ref().unwrap();
        sys::file::read_exact_at(file, &mut bytes, 0).unwrap();
        assert_eq!((u64::from_le_bytes(bytes), used.get()), (5, 5));
    }
}
