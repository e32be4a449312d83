//! Messages of BuildKit's services, as far as they are used: fields that are not named here are skipped
//! when they come and absent when they go. Numbers are those of the `.proto` files of
//! `moby/buildkit` 0.25 to 0.32 and `tonistiigi/fsutil`.

pub(crate) mod control;
pub(crate) mod files;
pub(crate) mod gateway;
pub(crate) mod session;
