//! Where a server is no container's first process, what asks for its end ends it as any program: the
//! system does it, and nothing comes here.

use std::convert::Infallible;
use std::io;

/// None come.
pub(super) struct Signals;

impl Signals {
    /// There is nothing to watch.
    pub(super) fn watch() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for ever. Safe to drop.
    pub(super) async fn next(&mut self) -> Infallible {
        std::future::pending().await
    }
}

/// Never called.
pub(super) fn end_by(signal: Infallible) -> ! {
    match signal {}
}
