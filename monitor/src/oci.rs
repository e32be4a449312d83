//! `ketch-init oci N`: performs the plan that is in the sealed memfd at descriptor N, for the OCI
//! runtime command line. Standard input, output and error are the caller's.

use std::ffi::OsString;

use runtime::{OciPlan, code};

/// No plan is longer: the specification that it was made from has at most 16 MiB.
const MAX_PLAN: u64 = 32 << 20;

/// Performs it and gives this program's exit code.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> i32 {
    let number = args.next().and_then(|arg| arg.to_str()?.parse().ok());
    let plan = number
        .ok_or_else(|| "it has no number".to_owned())
        .and_then(read);
    match plan {
        Ok(plan) => i32::from(runtime_native::oci::perform(&plan)),
        Err(why) => {
            let mut stderr = std::io::stderr();
            let line = format!("error: cannot read the plan: {why}\n");
            // Nobody is told when even that is closed.
            drop(std::io::Write::write_all(&mut stderr, line.as_bytes()));
            i32::from(code::ENGINE)
        }
    }
}

fn read(number: i32) -> Result<OciPlan, String> {
    let plan = sys::inherit::take(number).map_err(|error| error.to_string())?;
    let bytes = sys::sealed::read(plan, MAX_PLAN).map_err(|error| error.to_string())?;
    OciPlan::decode(&bytes).map_err(|error| error.to_string())
}
