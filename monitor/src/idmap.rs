//! `ketch-init idmap NEWUIDMAP ARGUMENTS NEWGIDMAP ARGUMENTS`: waits for a byte on standard input,
//! then runs both programs (newuidmap(1)), each with its arguments split at spaces. They must be
//! started from outside of the user namespace whose ids they map.

use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, Stdio};

/// Runs both and gives this program's exit code; what they say is on standard error.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> i32 {
    let mut byte = [0];
    // The front end has failed when it closes the pipe without a byte.
    if std::io::stdin().read_exact(&mut byte).is_err() {
        return 1;
    }
    let mut children = Vec::with_capacity(2);
    while let (Some(program), Some(arguments)) = (args.next(), args.next()) {
        let arguments = arguments.to_string_lossy().into_owned();
        let child = Command::new(program)
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .spawn();
        children.push(child);
    }
    let mut failed = children.len() != 2;
    for child in children {
        let status = child.and_then(|mut child| child.wait());
        failed |= !status.is_ok_and(|status| status.success());
    }
    i32::from(failed)
}
