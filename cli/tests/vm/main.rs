//! What this machine's kernel cannot show, in virtual machines: each is booted once and runs all the
//! commands of its module; each test looks at some of them.

#![expect(clippy::unwrap_used, reason = "test code")]

mod checkpoint;
mod groups;
mod systemd;

/// `step NAME COMMAND…` prints the name, what the command prints, and its exit status; `quietly`
/// prints nothing.
const STEPS: &str = r#"
step() {
    name=$1; shift
    echo "== $name"
    "$@" 2>&1
    echo "-- $?"
}
quietly() { "$@" >/dev/null 2>&1; }
"#;

/// The exit status and the output of one step.
fn step<'a>(output: Option<&'a str>, name: &str) -> Option<(i32, &'a str)> {
    let output = output?;
    let (_, rest) = output
        .split_once(&format!("== {name}\n"))
        .unwrap_or_else(|| panic!("no step {name} in:\n{output}"));
    let (text, rest) = rest
        .split_once("-- ")
        .unwrap_or_else(|| panic!("the step {name} has no end in:\n{output}"));
    let code = rest.lines().next().unwrap().parse().unwrap();
    Some((code, text))
}
