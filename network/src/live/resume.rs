//! The network of a container whose monitor was killed. Links, addresses and rules are still there,
//! leases and published ports are written down; what was the monitor's own are sockets, which are made
//! anew.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use state::read_record;
use sys::durable::remove_tree;

use super::joined::{Attached, Joined};
use super::state::NetworkState;
use crate::dns::{self, Rules};
use crate::firewall::Firewall;
use crate::lease::{self, Endpoint};
use crate::plan::{EndpointPlan, NetworkPlan};
use crate::ports::bind_again;
use crate::store::Networks;
use crate::user_mode;
use crate::{NetworkError, STATE_FILE, restore};

/// What a container has of the network by its monitor's record.
pub(crate) fn recorded(plan: &NetworkPlan) -> Result<NetworkState, NetworkError> {
    let file = plan.layout().container_run(&plan.container);
    Ok(read_record(&file.join(STATE_FILE))?)
}

/// Gives back what a container that has ended has of the network, when its monitor was killed.
pub fn clear_left(plan: &NetworkPlan) {
    let state = recorded(plan).unwrap_or_default();
    let layout = plan.layout();
    if plan.user.is_some() {
        user_mode::clear_left(plan);
    } else if let Ok(firewall) = Firewall::open() {
        // What stays is found by the next owner of a port.
        drop(firewall.unpublish(&state.mappings()));
    }
    drop(lease::release(&layout, &plan.container));
    drop(remove_tree(
        &layout.container_run(&plan.container).join(STATE_FILE),
    ));
}

impl Joined {
    /// Goes on with the network of a container that runs.
    ///
    /// # Errors
    /// What is not the container's any more; then nothing has changed.
    pub(super) fn resume(plan: NetworkPlan, netns: OwnedFd) -> Result<Self, NetworkError> {
        let state = recorded(&plan)?;
        let mut live = Self::open(plan, netns)?;
        for endpoint in state.endpoints.clone() {
            let attached = live.attached_again(endpoint)?;
            live.attached.push(attached);
        }
        live.publish_again(&state)?;
        // Its file of resolvers says so still, whatever networks it is on by now.
        if dns::is_redirected(live.netns.as_fd())? {
            live.start_responder(Rules::Left)?;
        }
        Ok(live)
    }

    /// An endpoint by its record, while its addresses are leased.
    fn attached_again(&self, endpoint: Endpoint) -> Result<Attached, NetworkError> {
        let config = Networks::new(self.layout.clone()).by_id(&endpoint.network)?;
        let lease = lease::path(&self.layout, &endpoint);
        if !lease.exists() {
            return Err(NetworkError::LeaseLost {
                network: endpoint.network_name,
            });
        }
        let mut plans = self.plan.endpoints.iter();
        let plan = plans.find(|plan| plan.network == endpoint.network).cloned();
        Ok(Attached {
            plan: plan
                .unwrap_or_else(|| EndpointPlan::on(&endpoint.network, &endpoint.network_name)),
            config,
            endpoint,
            lease,
        })
    }

    fn publish_again(&mut self, state: &NetworkState) -> Result<(), NetworkError> {
        let mappings = state.mappings();
        if mappings.is_empty() {
            return Ok(());
        }
        let bound = bind_again(&mappings)?;
        // Another container may have had a port meanwhile, and its element took the place of this one's.
        for mapping in &mappings {
            self.firewall.unpublish(std::slice::from_ref(mapping))?;
        }
        match self.firewall.publish(&mappings) {
            // The table is made with what is written down, this container's ports among it.
            Err(refused) if refused.errno == Errno::NOENT => {
                restore::if_gone(&self.layout, &self.firewall)?;
            }
            other => other.map_err(NetworkError::kernel("publish the ports"))?,
        }
        self.pass_on(bound)
    }
}
