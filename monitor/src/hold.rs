//! A process that is there and does nothing: a scope of systemd begins with one, and the container's
//! init is cloned into the scope's control group when that exists.

/// Waits for the end of standard input.
pub(crate) fn run() -> i32 {
    let mut byte = [0; 1];
    match rustix::io::retry_on_intr(|| rustix::io::read(std::io::stdin(), &mut byte)) {
        Ok(_) => 0,
        Err(_) => 1,
    }
}
