//! Facts about a process that its number alone does not tell.

use std::fs;
use std::io;

/// When a process was started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`, proc(5)):
/// with it a number that was given to another process is noticed.
///
/// # Errors
/// When there is no such process, or its record cannot be read.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = rest.split(' ').nth(19).ok_or(io::ErrorKind::InvalidData)?;
    field.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_of_init_is_before_ours() {
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(1).unwrap() <= start_time(ours).unwrap());
    }
}
