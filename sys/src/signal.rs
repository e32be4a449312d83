//! Signals that end a process although it is PID 1, and the end itself.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Ends the process with exit code 128 + n when one of these signals arrives.
///
/// As the first process of a PID namespace a program gets no default action for signals from
/// inside or from its parent (pid_namespaces(7)): without a handler SIGTERM would do nothing.
///
/// # Errors
/// When a number is no signal, or one that cannot be caught.
pub fn end_process_on(signals: &[i32]) -> io::Result<()> {
    for &signal in signals {
        install(signal)?;
    }
    Ok(())
}

fn install(signal: i32) -> io::Result<()> {
    // SAFETY: `struct sigaction` consists of integers and a mask, for which zero is a valid value.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = end_with_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_ONSTACK;
    // SAFETY: sigaction(2) reads one `struct sigaction`, which lives over the call; the old one is
    // not asked for. The handler is async-signal-safe: it calls `_exit` alone.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn end_with_signal(signal: libc::c_int) {
    exit_now(128_i32.wrapping_add(signal))
}

/// Ends the process at once: no destructors, no `atexit`, no joined threads (`_exit(2)`). What the
/// program buffers itself must be written before.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_process_on_uncatchable_signal_fails() {
        let error = end_process_on(&[libc::SIGKILL]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
