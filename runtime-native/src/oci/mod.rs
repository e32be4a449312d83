//! The verbs of the OCI runtime command line (runtime-spec v1.2 `runtime.md#operations`), as runc's
//! command line spells them: what Docker, podman and containerd call.
//!
//! No monitor stays with such a container: whoever called the command is its parent (or its
//! subreaper). What is known about it is in its directory below [`Root`]:
//!
//! ```text
//! <root>/<id>/config.json   the specification as it was when the container was created
//! <root>/<id>/state.json    its process
//! <root>/<id>/start         while it waits to be started: the pipe that lets it go on
//! <root>/<id>/report        what it says when its last steps fail
//! ```
//!
//! ```text
//! creating ──create──▶ created ──start──▶ running ◀──pause, resume──▶ paused
//!                         └──────kill──────▶ stopped ◀──ends──┘
//! ```
//!
//! `create`, `run` and `exec` end in `ketch-init` ([`hand_over`]), which does the rest ([`perform`]).

/// The exit code of an `exec` that failed itself: 1 would be the program's.
pub const EXEC_FAILED: u8 = 255;

mod bundle;
mod capability_sets;
mod checkpoint;
mod create;
mod criu;
mod delete;
mod error;
mod events;
mod exec;
mod exec_group;
mod features;
mod freeze;
mod hold;
mod home;
mod host_mounts;
mod kill;
mod list;
mod log;
mod perform;
mod pid_file;
mod pipe;
mod ps;
mod record;
mod relay;
mod restore;
mod spec;
mod start;
mod state;
mod update;

pub use bundle::{Bundle, Warnings, parse_process};
pub use checkpoint::{CheckpointOptions, checkpoint};
pub use create::{CgroupDriver, CreateOptions, Wasm, create};
pub use criu::{CgroupMode, CriuOptions};
pub use delete::delete;
pub use error::OciError;
pub use events::{oom_event, oom_kills, stats};
pub use exec::{ExecOptions, exec};
pub use features::features;
pub use freeze::{pause, resume};
pub use kill::{Reach, kill};
pub use list::list;
pub use log::Log;
pub use perform::{hand_over, perform};
pub use ps::processes;
pub use record::{Container, Record, Root, Status};
pub use restore::{RestoreOptions, restore};
pub use spec::default_spec;
pub use start::start;
pub use state::{State, state};
pub use update::update;
