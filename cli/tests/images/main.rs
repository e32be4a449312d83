//! Images, by the program: power cuts, other programs, bad input, commands.

#![expect(
    clippy::unwrap_used,
    reason = "functions of tests that are no tests themselves"
)]

mod commands;
mod peers;
mod power_cut;
mod security;
mod support;
