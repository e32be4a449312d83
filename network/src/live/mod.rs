//! The network of one running container, owned by its monitor: made when the container starts,
//! served while it runs, given back when it has ended.

mod endpoint;
mod joined;
mod owner;
mod publish;
mod resume;
mod state;

pub use owner::Live;
pub use resume::clear_left;
pub(crate) use resume::recorded;
pub use state::NetworkState;
