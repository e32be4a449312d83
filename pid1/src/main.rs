//! `ketch-pid1 NUMBER`: what a container with `--init` has as its first process. It passes signals
//! on to the program, which is its child `NUMBER`, reaps whatever loses its parent, and ends with
//! the program's exit code. It never starts anything itself.
//!
//! Without a C library, a heap or Rust's own start: a program that waits for weeks in every
//! container keeps a few pages. That is why this crate, beside `sys`, has `unsafe` code: its way in
//! and four system calls.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "system calls and a way in without a C library (see above)"
)]

use core::arch::{asm, global_asm};
use core::ptr;

/// System calls (`asm/unistd.h`).
#[cfg(target_arch = "x86_64")]
mod call {
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const KILL: usize = 62;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 128;
    pub(crate) const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod call {
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const KILL: usize = 129;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
    pub(crate) const WAIT4: usize = 260;
}

const SIGCHLD: i32 = 17;
const SIG_SETMASK: usize = 2;
const WNOHANG: usize = 1;
const EINTR: isize = -4;
const EAGAIN: isize = -11;

/// The engine's own exit code.
const FAILED: i32 = 125;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {entry}",
    entry = sym entry,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {entry}",
    entry = sym entry,
);

/// `siginfo_t` as far as it is read (sigaction(2)); the kernel writes 128 bytes.
#[repr(C)]
struct SignalInfo {
    signal: i32,
    errno: i32,
    code: i32,
    rest: [i32; 29],
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(FAILED)
}

/// What the kernel starts: the stack holds the number of arguments and their addresses.
///
/// # Safety
/// `stack` is the stack pointer that the kernel has set for a new program.
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the first word is the number of arguments (the ABI's process initialisation).
    let count = unsafe { *stack };
    if count < 2 {
        exit(FAILED);
    }
    // SAFETY: the second argument's address is the third word; there are two arguments.
    let argument = unsafe { *stack.add(2) };
    let program = number(ptr::with_exposed_provenance(argument));
    if program <= 0 {
        exit(FAILED);
    }
    serve(program)
}

/// The decimal number that a string holds; -1 for anything else.
fn number(text: *const u8) -> i32 {
    let mut value: i32 = 0;
    let mut at = text;
    loop {
        // SAFETY: an argument is a string that ends with NUL, and this stops there.
        let byte = unsafe { at.read() };
        if byte == 0 {
            return value;
        }
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return -1;
        }
        value = value
            .wrapping_mul(10)
            .wrapping_add(i32::from_ne_bytes([digit, 0, 0, 0]));
        // SAFETY: the byte read was not the last one of the string.
        at = unsafe { at.add(1) };
    }
}

fn serve(program: i32) -> ! {
    let all = u64::MAX;
    let mask = (&raw const all).expose_provenance();
    // SAFETY: eight bytes are read from `all`, which lives until the process ends
    // (rt_sigprocmask(2)).
    unsafe {
        syscall(
            call::RT_SIGPROCMASK,
            [SIG_SETMASK, mask, 0, size_of::<u64>()],
        )
    };
    // It may have ended before its signal could wait.
    reap(program);
    loop {
        let mut info = SignalInfo {
            signal: 0,
            errno: 0,
            code: 0,
            rest: [0; 29],
        };
        let to = (&raw mut info).expose_provenance();
        // SAFETY: eight bytes are read from `all`, and at most 128 written to `info`, which has as
        // many; no timeout (rt_sigtimedwait(2)).
        let signal = unsafe { syscall(call::RT_SIGTIMEDWAIT, [mask, to, 0, size_of::<u64>()]) };
        match signal {
            EINTR | EAGAIN => {}
            ..0 => exit(FAILED),
            _ if info.signal == SIGCHLD => reap(program),
            // What the terminal sends, the program gets as well: it is of the same group.
            _ if info.code > 0 => {}
            _ => {
                let to = usize::try_from(program).unwrap_or(0);
                let signal = usize::try_from(info.signal).unwrap_or(0);
                // SAFETY: kill takes two integers. One that has ended is reaped next.
                unsafe { syscall(call::KILL, [to, signal, 0, 0]) };
            }
        }
    }
}

/// Takes the end of every child that has ended; with the program's this process ends too.
fn reap(program: i32) {
    loop {
        let mut status: i32 = 0;
        let to = (&raw mut status).expose_provenance();
        // SAFETY: four bytes are written to `status`; -1 means any child (wait4(2)).
        let pid = unsafe { syscall(call::WAIT4, [usize::MAX, to, WNOHANG, 0]) };
        if pid <= 0 {
            return;
        }
        if i32::try_from(pid) == Ok(program) {
            // wait(2), WIFSIGNALED and WEXITSTATUS.
            match status & 0x7f {
                0 => exit((status >> 8) & 0xff),
                signal => exit(128 + signal),
            }
        }
    }
}

fn exit(code: i32) -> ! {
    let code = usize::try_from(code).unwrap_or(1);
    loop {
        // SAFETY: exit_group takes an integer and does not return.
        unsafe { syscall(call::EXIT_GROUP, [code, 0, 0, 0]) };
    }
}

/// # Safety
/// As the system call's manual page says.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, args: [usize; 4]) -> isize {
    let result: isize;
    // SAFETY: the kernel changes rax, rcx and r11 only, and memory as the caller has agreed to.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// # Safety
/// As the system call's manual page says.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, args: [usize; 4]) -> isize {
    let result: isize;
    // SAFETY: the kernel changes x0 only, and memory as the caller has agreed to.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            options(nostack),
        );
    }
    result
}
