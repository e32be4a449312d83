//! Hooks: programs that a specification asks for at fixed points of a container's life
//! (runtime-spec v1.2 `config.md#posix-platform-hooks`).

use std::ffi::CString;

use serde::{Deserialize, Serialize};

/// All hooks of a container, with what they are told on standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksPlan {
    /// The part of the container's state that does not change.
    pub about: ContainerFacts,
    /// Once the namespaces and mounts are there, outside of them: `prestart`, then `createRuntime`.
    pub create_runtime: Vec<HookPlan>,
    /// Then, inside the namespaces, with the host's files still in sight.
    pub create_container: Vec<HookPlan>,
    /// Inside the container, right before its program.
    pub start_container: Vec<HookPlan>,
    /// Outside, once the program runs.
    pub poststart: Vec<HookPlan>,
    /// Outside, once the container is removed.
    pub poststop: Vec<HookPlan>,
}

impl HooksPlan {
    /// Whether the init has to wait for its parent between its mounts and its new root.
    #[must_use]
    pub fn interrupt_creation(&self) -> bool {
        !(self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPlan {
    /// Where the specification has it: `hooks.prestart[0]`.
    pub field: String,
    /// Its absolute path.
    pub path: CString,
    /// Arguments, `argv[0]` being the first.
    pub args: Vec<CString>,
    /// Its whole environment.
    pub env: Vec<CString>,
    /// How long it may take.
    pub timeout_ms: Option<u64>,
}

/// What the state of a container says that never changes (runtime-spec v1.2 `runtime.md#state`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// The version of the specification.
    pub oci_version: String,
    /// The id.
    pub id: String,
    /// The bundle's directory, absolute.
    pub bundle: String,
    /// Annotations, sorted.
    pub annotations: Vec<(String, String)>,
}
