//! The built-in first process.

use super::{printed, sandbox, shell, sleeper};

#[test]
fn first_process_is_the_parent_and_gives_the_programs_exit_code() {
    let Some(cx) = sandbox() else { return };
    let script = "busybox tr '\\0' ' ' < /proc/1/cmdline; echo $PPID; exit 7";
    let run = shell(&cx, &["--init"], script);
    assert_eq!(run.code, 7, "{}", run.stderr);
    assert_eq!(run.stdout, "ketch-init 2 1\n");
    let run = shell(&cx, &["--init"], "kill -9 $$");
    assert_eq!(run.code, 137);
}

#[test]
fn program_that_cannot_run_is_told_as_without_a_first_process() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch(["run", "--rm", "--init", "box", "/nothing"]);
    assert_eq!(run.code, 127, "{}", run.stderr);
    assert!(
        run.stderr.contains("cannot execute `/nothing`"),
        "{}",
        run.stderr
    );
    let run = cx.ketch(["run", "--rm", "--init", "box", "/etc/passwd"]);
    assert_eq!(run.code, 126, "{}", run.stderr);
}

#[test]
fn orphans_are_reaped() {
    let Some(cx) = sandbox() else { return };
    // A child of a child that has ended, which nobody but the first process can wait for.
    let script = "for i in 1 2 3; do (busybox true & ) ; done; \
        while busybox ps -o stat,args | busybox grep -q ^Z; do :; done; echo none";
    assert_eq!(printed(&cx, &["--init"], script), "none");
}

#[test]
fn signals_are_passed_on() {
    let Some(cx) = sandbox() else { return };
    // The program's default action, which a first process of its own would not have.
    sleeper(&cx, &["--init"]);
    assert_eq!(cx.ketch(["kill", "-s", "TERM", "other"]).code, 0);
    assert_eq!(cx.ketch(["wait", "other"]).stdout, "143\n");
    assert_eq!(cx.ketch(["rm", "other"]).code, 0);
}

#[test]
fn first_process_takes_few_pages() {
    let Some(cx) = sandbox() else { return };
    let resident = printed(
        &cx,
        &["--init"],
        "busybox awk '/VmRSS/ {print $2}' /proc/1/status",
    );
    assert!(resident.parse::<u32>().unwrap() < 100, "{resident} KiB");
}
