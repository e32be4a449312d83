//! The contract between engine, monitor and runtimes: the plan that a front end hands to
//! `ketch-init`, the messages on a container's control socket, how a container ended, and which
//! runtime an image gets. It knows no image store and no kernel: it is data and pure functions.
#![forbid(unsafe_code)]

mod control;
pub mod detect;
mod exit;
mod health;
mod hooks;
mod log;
mod oci;
mod plan;
mod restart;

pub use control::{ControlError, Event, MAX_MESSAGE, Request, Response};
pub use exit::{ExitStatus, GuestReport, LINEAR_MEMORY, StartFailure, code};
pub use health::{HealthPlan, ProbePlan};
pub use hooks::{ContainerFacts, HookPlan, HooksPlan};
pub use log::{
    COMPRESS, LOG_NAME, LogAddress, LogDestination, LogFilePlan, LogFormat, LogPlan, LogReceiver,
    LogWriterPlan, SyslogFormat,
};
pub use oci::{Extent, LogTarget, OciContainer, OciExec, OciPlan, OciVerb, ScopeHold, Terminal};
pub use plan::{
    CapabilitySets, CgroupPlan, CgroupWrite, Console, CpuAffinity, DevicePlan, EventPlan, ExecPlan,
    IdMap, InitPlan, LineEnds, MemoryPolicy, MonitorPlan, MountIdMap, MountPlan, MountSource,
    Namespace, Plan, PlanError, ProcessPlan, Program, Rlimit, RootChange, RootPropagation,
    RootfsPlan, Scheduler, SeccompListener, StdinMode, UserMap, VERSION, WasmPlan,
};
pub use restart::{NoRestartPolicy, RestartPolicy};
