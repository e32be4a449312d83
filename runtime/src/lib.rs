//! The contract between engine, monitor and runtimes: the plan that a front end hands to
//! `ketch-init`, the messages on a container's control socket, how a container ended, and which
//! runtime an image gets. It knows no image store and no kernel: it is data and pure functions.
#![forbid(unsafe_code)]

mod control;
pub mod detect;
mod exit;
mod plan;

pub use control::{ControlError, Event, MAX_MESSAGE, Request, Response};
pub use exit::{ExitStatus, StartFailure, code};
pub use plan::{
    CapabilitySets, CgroupPlan, CgroupWrite, Console, DevicePlan, ExecPlan, IdMap, InitPlan,
    LogPlan, MonitorPlan, MountPlan, MountSource, Namespace, Plan, PlanError, ProcessPlan, Program,
    Rlimit, RootfsPlan, StdinMode, UserMap, VERSION, WasmPlan,
};
