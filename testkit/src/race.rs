//! Something that goes on beside what a test does.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Ends the repetition when it is dropped: also when the test has found something.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `beside` again and again on a thread of its own, for as long as `work` takes.
///
/// # Panics
/// When one of them does.
pub fn race(mut beside: impl FnMut() + Send, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                beside();
            }
        });
        let _stop = Stop(&stop);
        work();
    });
}

/// Exchanges two names for as long as `work` takes.
pub fn swap(one: &Path, two: &Path, work: impl FnOnce()) {
    let beside = || {
        // The other side may be in the way for a moment.
        let _busy = exchange(one, two);
    };
    race(beside, work);
}

/// Lets two names change places.
///
/// # Errors
/// When one of them is not there.
pub fn exchange(one: &Path, two: &Path) -> Result<(), Errno> {
    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_beside_ends_when_the_work_fails() {
        let failed = std::panic::catch_unwind(|| race(|| (), || panic!("found something")));
        assert!(failed.is_err());
    }
}
