//! What stands between a container and the host, as far as a user may change it: privileges,
//! devices, namespaces, limits. Everything ends up in the OCI specification, which stays the one
//! description of the container.

mod apply;
mod cdi;
mod devices;
mod limits;
mod namespaces;
mod options;
mod security;

pub(crate) use apply::{Context, apply, bounding};
pub use cdi::is_cdi_device;
pub(crate) use namespaces::SharedNamespace;
pub use options::{
    DeviceAccess, DeviceRequest, DeviceRule, IpcMode, IsolationOptions, ResourceLimits,
    SeccompProfile, SecurityOptions, Share, ThrottledDevice, Ulimit, UserMode,
};
