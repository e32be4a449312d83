//! runtime-native
#![forbid(unsafe_code)]

pub mod capability;
pub mod seccomp;
