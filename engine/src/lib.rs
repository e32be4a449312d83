//! What a user can ask of ketch: containers from images, found, started, watched and removed. It
//! never prints, reads no environment and keeps nothing in memory between calls: the records on
//! disk and the containers' monitors are the truth.
#![forbid(unsafe_code)]

mod change;
mod check;
mod create;
mod detach;
mod details;
pub mod docker;
mod error;
mod events;
mod exec;
mod executables;
mod files;
mod filter;
mod full_socket;
mod health;
mod image_use;
mod isolation;
mod leftovers;
mod list;
mod log;
mod memory;
mod mounts;
mod network;
mod options;
mod plug;
mod processes;
mod query;
mod remote_mounts;
mod rename;
mod rescue;
mod runtime_choice;
mod segment_reader;
mod session;
mod settle_mounts;
mod size;
mod spec;
mod start;
mod step;
mod subject;
mod subordinate;
mod user;
mod user_namespace;
mod volume;
mod volume_archive;
mod volume_driver;
mod wasm_only;

pub use change::Changes;
pub use check::Finding;
pub use create::Created;
pub use detach::{BadDetachKeys, DEFAULT_DETACH_KEYS, DetachKeys};
pub use details::ContainerDetails;
pub use error::{EngineError, ErrorKind};
pub use events::EventReader;
pub use exec::{ExecOptions, Privilege};
pub use executables::Executables;
pub use files::{
    CommitRequest, ContainerRoot, Copied, CopyOptions, FileChange, FileChangeKind, FollowLink,
    Local, OutgoingCopy, Owner, receive_copy,
};
pub use filter::Filters;
pub use full_socket::{DEFAULT_SOCKET, FullSockets};
pub use health::{HealthCheck, HealthOptions};
pub use isolation::{
    DeviceAccess, DeviceRequest, DeviceRule, IpcMode, IsolationOptions, ResourceLimits,
    SeccompProfile, SecurityOptions, Share, ThrottledDevice, Ulimit, UserMode, is_cdi_device,
};
pub use list::{ListOptions, status_word};
pub use log::{LogOptions, LogReader, compress_log};
pub use mounts::{ContainerMount, MountKind, MountRequest};
pub use network::{ContainerNetwork, NetworkMode};
pub use options::{ContainerOptions, Join, Network, NetworkOptions, WasmOptions};
pub use plug::WasmPlug;
pub use processes::{Sample, Usage};
pub use query::{Container, Rejoined, StreamKinds};
pub use rescue::{BroughtBack, Orphan, Rescued, orphans};
pub use session::{Session, Streams, Wanted};
pub use size::ContainerSize;
pub use start::Force;
pub use step::{Step, StepMount, StepOptions, StepSource, is_signal};
pub use subject::Explanation;
pub use user_namespace::{UserNamespace, UserNamespaceError};
pub use volume::{CreateVolume, LOCAL, VolumeConfig};
pub use volume_driver::ForeignVolume;

use std::path::PathBuf;

use image::Store;
use state::Layout;
use sys::lock::FileLock;

/// The engine: one state root, one run directory.
#[derive(Debug)]
pub struct Engine {
    layout: Layout,
    store: Store,
    executables: Executables,
    /// The program to run again as the compile worker.
    ketch: PathBuf,
    /// The user namespace that this process has entered.
    user_namespace: Option<UserNamespace>,
    /// What is below `tmp/` may be ours while this is held.
    _tmp: FileLock,
}

impl Engine {
    /// Puts the parts together, and clears away what processes left that are gone.
    ///
    /// # Errors
    /// When the lock of `tmp/` cannot be taken.
    pub fn new(
        layout: Layout,
        store: Store,
        executables: Executables,
        ketch: PathBuf,
    ) -> Result<Self, EngineError> {
        let tmp = leftovers::share_tmp(&layout)?;
        Ok(Self {
            layout,
            store,
            executables,
            ketch,
            user_namespace: None,
            _tmp: tmp,
        })
    }

    /// Whether this process stands in a user namespace of an ordinary user.
    pub(crate) fn is_in_user_namespace(&self) -> bool {
        self.user_namespace.is_some()
    }

    /// The same engine for an ordinary user, whose process stands in a user namespace.
    #[must_use]
    pub fn in_user_namespace(self, namespace: UserNamespace) -> Self {
        Self {
            user_namespace: Some(namespace),
            ..self
        }
    }

    /// Where everything is.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The images.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}
