//! Local time, as the host's administrator has set it.

use std::io;
use std::mem::MaybeUninit;

/// A moment on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// From 0.
    pub month: usize,
    /// From 1.
    pub day: i32,
    /// From 0.
    pub hour: i32,
    /// From 0.
    pub minute: i32,
    /// From 0; 60 in a leap second.
    pub second: i32,
}

/// The local time of so many seconds since 1970.
///
/// # Errors
/// When the year does not fit.
pub fn local(seconds: i64) -> io::Result<LocalTime> {
    let mut broken = MaybeUninit::uninit();
    // SAFETY: both pointers are valid, and localtime_r(3) keeps neither; it writes the second one.
    let done = unsafe { libc::localtime_r(&raw const seconds, broken.as_mut_ptr()) };
    if done.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: localtime_r(3) has returned its argument, which it has filled in then.
    let broken: libc::tm = unsafe { broken.assume_init() };
    Ok(LocalTime {
        month: usize::try_from(broken.tm_mon).unwrap_or(0),
        day: broken.tm_mday,
        hour: broken.tm_hour,
        minute: broken.tm_min,
        second: broken.tm_sec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_differs_from_utc_by_whole_minutes() {
        let at = local(1_700_000_007).unwrap();
        assert_eq!((at.second, at.month), (27, 10));
        assert!((14..=15).contains(&at.day));
    }
}
