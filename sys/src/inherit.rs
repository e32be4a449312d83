//! Descriptors that a program was started with, at numbers agreed with whoever exec'd it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Takes what the inherited descriptor `number` refers to: a close-on-exec duplicate, which belongs
/// to the caller alone. The inherited number stays open.
///
/// # Errors
/// `EBADF` when the program was started without it.
pub fn duplicate_inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes any two numbers and changes no memory (fcntl(2)); a number that
    // is not open gives EBADF.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl made this descriptor just now, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// As [`duplicate_inherited`], and closes the inherited number, which the caller says nobody else
/// uses.
///
/// # Errors
/// `EBADF` when the program was started without it.
pub fn take(number: i32) -> io::Result<OwnedFd> {
    let duplicate = duplicate_inherited(number)?;
    // SAFETY: `close` takes any number and changes no memory; 0 to 2 belong to the standard library.
    unsafe { if number > 2 { libc::close(number) } else { 0 } };
    Ok(duplicate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_inherited_of_a_closed_number_fails() {
        let error = duplicate_inherited(i32::MAX).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        duplicate_inherited(2).unwrap();
    }
}
